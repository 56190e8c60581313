"""Does training with cycles pay on photographs? DeiT-Tiny's body on a small image set, five arms, paired seeds.

    python benchmarks/imagenette.py DATA --tune                   # learning rates, on held-out training images
    python benchmarks/imagenette.py DATA --lr 1e-3 --minutes 9    # the study (one GPU, bf16); repeat until complete
    python benchmarks/imagenette.py DATA --steps 300 --batch 64 --dim 48 --depth 4 --patch 16 --drop-path 0 --lr 2e-3

DATA is a folder with train.parquet and validation.parquet (or test.parquet) of square images of one size, columns
``image{bytes,path}`` and ``label``. Needs the extra ``all``. Finished runs are kept in --output, so a study that was
stopped goes on where it was. The last command made the CPU numbers in results/ (CIFAR-10: patch 8).

Fixed in advance. Model: timm's deit_tiny_patch16_224 at the images' size. Arms: base (plain); exits, sdpose, mct (two
cycles, those presets); base_eq (plain, its steps multiplied by sdpose's measured training cost, schedule stretched); on
request deep (plain, twice the blocks) and elt. A seed fixes initial weights, batches and crops for every arm.
Augmentation on the device: random resized crop (area .35 to 1, bilinear) and flip, nothing else; label smoothing .1;
drop path .1; AdamW, weight decay .05, cosine with 5 % warm-up. Primary number: top-1 on all validation images after the
last step. bf16 autocast on CUDA, fp32 elsewhere. Whatever comes out is printed, diverged runs included.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from common import RESULTS, hardware, versions, write  # beside this file
from PIL import Image
from scipy import stats
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from cycledistill import CycleLoss, CycleOutput, unwrap_cyclic, wrap_cyclic
from cycledistill.cost.report import cost

# arm -> preset of wrap_cyclic; None is the plain model
PRESETS = dict.fromkeys(("base", "base_eq", "deep")) | {name: name for name in ("mct", "exits", "sdpose", "elt")}
DEFAULT_ARMS = ["base", "exits", "sdpose", "mct", "base_eq"]
EXITS = (1, 2, 3)
RATES = (5e-4, 1e-3, 2e-3, 4e-3)  # what --tune tries
HELD_OUT = 1000
COMPARISONS = """sdpose@1-base@1 sdpose@1-base_eq@1 sdpose@1-exits@1 exits@1-base@1 exits@1-mct@1 exits@2-base@2
exits@3-base@3 sdpose@2-base@2 sdpose@3-base@3 mct@2-base@1 mct@2-base_eq@1 mct@2-deep@1""".split()

Settings = argparse.Namespace  # what must agree between runs that are compared
Record = dict[str, Any]
Split = tuple[Tensor, Tensor]  # images (B, 3, S, S) uint8, labels (B,), both on the device


def read_split(folder: Path, names: tuple[str, ...], device: torch.device) -> Split:
    """Decode the first of ``names`` that ``folder`` holds, once, to a uint8 tensor on the device."""
    import pyarrow.parquet as pq

    found = [folder / f"{name}.parquet" for name in names if (folder / f"{name}.parquet").is_file()]
    if not found:
        raise SystemExit(f"{folder} holds no {' or '.join(f'{name}.parquet' for name in names)}: give the set's folder")
    rows = pq.read_table(found[0], columns=["image", "label"])
    pictures = [np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB")) for row in rows["image"].to_pylist()]
    shapes = sorted({picture.shape[:2] for picture in pictures})
    if len(shapes) != 1 or shapes[0][0] != shapes[0][1]:
        raise SystemExit(f"{found[0].name} holds images of sizes {shapes[:3]}: one square size is expected")
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return images.to(device), torch.tensor(rows["label"].to_pylist(), device=device)


def normalise(images: Tensor) -> Tensor:
    """Bytes to floats in [-1, 1]."""
    return images.float() / 127.5 - 1


def augment(images: Tensor, draw: torch.Generator) -> Tensor:
    """Random resized crop and flip of every image, (B, 3, S, S) floats; one box an image."""
    count, device = len(images), images.device
    area, ratio, x, y, flip = torch.rand(5, count, generator=draw, device=device)
    area, ratio = 0.35 + 0.65 * area, torch.exp((2 * ratio - 1) * math.log(4 / 3))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0] = torch.where(flip < 0.5, -width, width)
    theta[:, 1, 1] = height
    theta[:, 0, 2], theta[:, 1, 2] = (2 * x - 1) * (1 - width), (2 * y - 1) * (1 - height)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def batches(data: Split, steps: int, size: int, seed: int) -> Iterator[Split]:
    """Shuffled epochs without end, cut after ``steps`` batches; the same for every arm of a seed."""
    images, labels = data
    size = min(size, len(labels))
    draw = torch.Generator(images.device).manual_seed(seed)
    order = torch.empty(0, dtype=torch.long, device=images.device)
    for _ in range(steps):
        if len(order) < size:
            order = torch.randperm(len(labels), generator=draw, device=images.device)
        index, order = order[:size], order[size:]
        yield augment(normalise(images[index]), draw), labels[index]


def build(settings: Settings, arm: str, classes: int, seed: int) -> nn.Module:
    """The arm's model, wrapped if it trains with cycles."""
    torch.manual_seed(seed)
    model = timm.create_model(
        "deit_tiny_patch16_224", img_size=settings.size, patch_size=settings.patch, embed_dim=settings.dim,
        depth=settings.depth * (2 if arm == "deep" else 1), num_heads=max(1, settings.dim // 64), num_classes=classes,
        drop_path_rate=settings.drop_path,
    )  # fmt: skip
    if PRESETS[arm] is not None:
        wrap_cyclic(model, cycles=2, distill=PRESETS[arm])
    return model.to(settings.device)


def autocast(settings: Settings) -> torch.autocast:
    """The precision of a forward."""
    return torch.autocast(settings.device, dtype=torch.bfloat16, enabled=settings.precision == "bf16")


def clock(settings: Settings) -> float:
    """Seconds: of the process on a CPU, of the wall with the GPU's queue drained on CUDA."""
    if settings.device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def train(model: nn.Module, data: Split, steps: int, seed: int, settings: Settings) -> tuple[float, dict[str, float]]:
    """Train in place; returns seconds and the mean terms of the last tenth of the steps (losses, token rms)."""
    criterion = CycleLoss(nn.CrossEntropyLoss(label_smoothing=0.1))
    optimizer = create_optimizer_v2(model, "adamw", lr=settings.lr, weight_decay=0.05, fused=True)
    warmup = max(1, steps // 20)
    schedule = LambdaLR(optimizer, lambda step: min((step + 1) / warmup, (1 + math.cos(math.pi * step / steps)) / 2))
    model.train()
    seen: list[dict[str, Tensor]] = []
    began = clock(settings)
    for step, (images, labels) in enumerate(batches(data, steps, settings.batch, seed)):
        with autocast(settings):
            out = model(images)
            terms = criterion.parts(out, labels)
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step >= int(0.9 * steps):
            terms["loss"] = loss
            if isinstance(out, CycleOutput):
                rms = [
                    tokens.detach().float().square().mean().sqrt()
                    for tokens in out.tokens
                    if isinstance(tokens, Tensor)
                ]
                terms |= {f"token_rms_{cycle}": value for cycle, value in enumerate(rms, start=1)}
            seen.append({name: value.detach() for name, value in terms.items()})
    seconds = clock(settings) - began
    return seconds, {name: torch.stack([terms[name] for terms in seen]).mean().item() for name in seen[0]}


@torch.no_grad()
def top1(model: nn.Module, data: Split, settings: Settings) -> list[float]:
    """Percent right at each of EXITS; ``model`` is wrapped and ends at exit 1."""
    model.eval()
    handle: Any = model.cyclic
    right = torch.zeros(len(EXITS), device=data[1].device)
    for images, labels in zip(data[0].split(500), data[1].split(500), strict=True):
        pixels = normalise(images)
        for place, cycles in enumerate(EXITS):
            handle.exit = cycles
            with autocast(settings):
                right[place] += (model(pixels).argmax(dim=1) == labels).sum()
    handle.exit = 1
    return [100 * count / len(data[1]) for count in right.tolist()]


def run(arm: str, seed: int, steps: int, train_data: Split, test_data: Split, settings: Settings) -> Record:
    """Train and measure one arm from one seed."""
    model = build(settings, arm, int(train_data[1].max()) + 1, seed)
    seconds, terms = train(model, train_data, steps, seed, settings)
    if PRESETS[arm] is None:
        wrap_cyclic(model, cycles=1, distill=None)  # trained plain; wrapped to be read at more cycles too
    measured = top1(model, test_data, settings)
    some = normalise(test_data[0][:64])
    with torch.no_grad(), autocast(settings):
        same = torch.equal(model(some), unwrap_cyclic(model)(some))
    return {"arm": arm, "seed": seed, "steps": steps, "seconds": seconds, "top1": measured, "last_tenth": terms,
            "diverged": not math.isfinite(terms["loss"]), "deployed_equal": same}  # fmt: skip


def measure_cost(data: Split, settings: Settings, rounds: int = 5) -> float:
    """Training time of an sdpose step over a plain one, median of interleaved rounds; fixes base_eq's steps."""
    models = {arm: build(settings, arm, int(data[1].max()) + 1, seed=0) for arm in ("base", "sdpose")}
    ratios = []
    for _ in range(rounds + 1):
        times = {arm: train(model, data, 5, 0, settings)[0] for arm, model in models.items()}
        ratios.append(times["sdpose"] / times["base"])
    return float(np.median(ratios[1:]))


def paired(runs: list[Record], comparison: str) -> Record | None:
    """A difference over the seeds both sides have, with its 95 % interval (t); None for fewer than two seeds."""
    values = []
    for arm, exit in (side.split("@") for side in comparison.split("-")):
        values.append({found["seed"]: found["top1"][int(exit) - 1] for found in runs if found["arm"] == arm})
    difference = np.array([values[0][seed] - values[1][seed] for seed in values[0] if seed in values[1]])
    if len(difference) < 2:
        return None
    mean, std = float(difference.mean()), float(difference.std(ddof=1))
    half = float(stats.t.ppf(0.975, len(difference) - 1)) * std / math.sqrt(len(difference))
    counts = {"wins": int((difference > 0).sum()), "seeds": len(difference)}
    return {"comparison": comparison, "mean": mean, "std": std, "low": mean - half, "high": mean + half, **counts}


def summary(record: Record) -> str:
    """The table and the paired differences of the finished runs."""
    runs, chosen = record["runs"], record["settings"]
    seconds = {arm: np.mean([r["seconds"] for r in runs if r["arm"] == arm]) for arm in {r["arm"] for r in runs}}
    lines = [
        f"{record['kind']}: {chosen['data']}, {chosen['size']} px, width {chosen['dim']}, depth {chosen['depth']}, "
        f"{record['parameters']:,} weights, {chosen['steps']} steps ({record['epochs']} epochs), {record['hardware']}",
        "arm      seeds  steps  training cost    train loss" + "".join(f"{f'top-1 @{exit}':>15}" for exit in EXITS),
    ]
    for arm in (arm for arm in PRESETS if arm in seconds):
        own = [r for r in runs if r["arm"] == arm]
        scores = np.array([r["top1"] for r in own])
        spread = scores.std(0, ddof=1) if len(own) > 1 else np.full(len(EXITS), math.nan)
        relative = seconds[arm] / seconds["base"] if "base" in seconds else math.nan
        losses = [next(value for name, value in r["last_tenth"].items() if name.startswith("task")) for r in own]
        lines.append(
            f"{arm:<9}{len(own):>5}{own[0]['steps']:>7}{relative:>15.2f}{np.mean(losses):>14.3f}"
            + "".join(f"{f'{mean:.2f} ± {std:.2f}':>15}" for mean, std in zip(scores.mean(0), spread, strict=True))
        )
    bad = [f"{r['arm']} seed {r['seed']}" for r in runs if r["diverged"] or not r["deployed_equal"]]
    lines.append("MMACs an image: " + ", ".join(f"{n} @{exit}" for exit, n in zip(EXITS, record["mmacs"], strict=True)))
    lines.append(f"Diverged, or deployed model not bit-equal: {', '.join(bad) or 'none'}.")
    lines.append("Paired differences, points, with 95 % intervals not corrected for their number; * leaves out 0:")
    for found in filter(None, (paired(runs, comparison) for comparison in COMPARISONS)):
        star = "*" if found["low"] > 0 or found["high"] < 0 else " "
        lines.append(
            f"  {found['comparison'].replace('-', ' - '):<22}{found['mean']:>+7.2f} [{found['low']:+.2f}, "
            f"{found['high']:+.2f}]{star}  higher in {found['wins']} of {found['seeds']} seeds"
        )
    return "\n".join(lines)


def open_record(path: Path, settings: Settings, images: int, classes: int) -> Record:
    """The record to add to: that of ``path`` if its settings agree, else a new one."""
    if path.is_file():
        record: Record = json.loads(path.read_text(encoding="utf-8"))
        other = {k: (v, vars(settings).get(k)) for k, v in record["settings"].items() if v != vars(settings).get(k)}
        if other:
            raise SystemExit(f"{path.name} holds runs of other settings (there, here): {other}; give another --output")
        return record
    report = cost(build(settings, "base", classes, 0).cpu(), torch.zeros(1, 3, settings.size, settings.size), cycles=3)
    return {
        "kind": "study" if settings.device == "cuda" else "short CPU run, far from convergence",
        "settings": vars(settings),
        "hardware": hardware(settings.device, f"{settings.threads} thread(s)"),
        "versions": versions("timm"),
        "epochs": round(settings.steps * settings.batch / images, 1),
        "parameters": report.parameters,
        "mmacs": [round(macs.total / 1e6, 1) for macs in report.exits],
        "exits": EXITS,
        "runs": [],
    }


def tune(train_data: Split, settings: Settings) -> list[Record]:
    """Top-1 on held-out training images, the same rates for the plain model and for sdpose."""
    order = torch.randperm(len(train_data[1]), generator=torch.Generator().manual_seed(0)).to(train_data[1].device)
    held, rest = ((train_data[0][part], train_data[1][part]) for part in (order[:HELD_OUT], order[HELD_OUT:]))
    tried = []
    for arm in ("base", "sdpose"):
        for rate in RATES:
            found = run(arm, 100, settings.steps, rest, held, Settings(**{**vars(settings), "lr": rate}))
            tried.append({"arm": arm, "lr": rate, "held_out_top1": found["top1"][0]})
            print(f"{arm:<8} lr {rate:g}: top-1 {found['top1'][0]:.2f} on {HELD_OUT} held-out images", flush=True)
    return tried


def study(record: Record, train_data: Split, test_data: Split, args: Settings, settings: Settings, path: Path) -> None:
    """Run what is missing and keep each run as it ends."""
    began = time.monotonic()
    done = {(found["arm"], found["seed"]) for found in record["runs"]}
    missing = [(arm, seed) for seed in range(args.seeds) for arm in args.arms if (arm, seed) not in done]
    for count, (arm, seed) in enumerate(missing):
        if time.monotonic() - began > 60 * args.minutes:
            print(f"{len(missing) - count} runs are left: the same command goes on.")
            break
        steps = round(settings.steps * (record["sdpose_cost"] if arm == "base_eq" else 1))
        found = run(arm, seed, steps, train_data, test_data, settings)
        record["runs"].append(found)
        record["comparisons"] = list(filter(None, (paired(record["runs"], one) for one in COMPARISONS)))
        write(path, record)
        accuracy = ", ".join(f"{value:.2f}" for value in found["top1"])
        print(f"{arm} seed {seed}: {accuracy}, {found['seconds']:.0f} s", flush=True)


def main() -> int:
    """Read the options and the images, run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train.parquet and validation.parquet or test.parquet")
    parser.add_argument("--arms", nargs="+", choices=list(PRESETS), default=DEFAULT_ARMS)
    numbers = {"seeds": 3, "steps": 1850, "batch": 512, "dim": 192, "depth": 12, "patch": 8, "threads": 1, "lr": 1e-3}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"default {default}")
    parser.add_argument("--drop-path", type=float, default=0.1, help="default 0.1")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start no run later; the same command goes on")
    parser.add_argument("--output", type=Path, help="JSON (default benchmarks/results/imagenette-DATA-DEVICE.json)")
    parser.add_argument("--tune", action="store_true", help="only try learning rates, on held-out training images")
    args = parser.parse_args()
    for name in numbers:
        if getattr(args, name) <= 0:
            parser.error(f"--{name} {getattr(args, name)}: a number above 0 is expected")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no CUDA device here; --device cpu runs the short version")
    torch.set_num_threads(args.threads)
    train_data = read_split(args.data, ("train",), torch.device(args.device))
    settings = Settings(**{name: getattr(args, name) for name in (*numbers, "drop_path", "device") if name != "seeds"})
    settings.data, settings.size = args.data.resolve().name, train_data[0].shape[-1]
    settings.precision = "bf16" if args.device == "cuda" else "fp32"
    path = args.output or RESULTS / f"imagenette-{settings.data}-{settings.device}.json"
    if args.tune:
        tuned = {"settings": vars(settings), "tuning": tune(train_data, settings)}
        write(path.with_stem(f"{path.stem}-tuning"), tuned)
        return 0
    record = open_record(path, settings, len(train_data[1]), int(train_data[1].max()) + 1)
    record["sdpose_cost"] = record.get("sdpose_cost") or measure_cost(train_data, settings)
    test_data = read_split(args.data, ("validation", "test", "val"), torch.device(args.device))
    study(record, train_data, test_data, args, settings, path)
    print(f"\n{summary(record)}\n\nNumbers: {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
