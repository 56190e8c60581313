"""How fast are the pose models: inference, preparation for it, training steps, decoding?

    python benchmarks/pose_speed.py                    # on the GPU if there is one, else on the CPU
    python benchmarks/pose_speed.py --device cpu --models sdpose_s_v1 --batch 1 --repeats 5

Random weights and images of 256x192, in one process, in interleaved rounds whose order turns each time; a ratio is the
median over the rounds of the ratio within a round, a rate the images over the median time.

- inference   eval forward, without flip test: the plain model, the wrapped one at one cycle (bar 1.02 of the plain
              one), and the prepared one (``prepare_for_inference``), in float32 and in bfloat16. Whole batches:
              `sub_batches.py` measures what parts add.
- training    forward, mean squared error of every cycle, backward; no optimizer: wrapped (distillation off) over a
              hand-written loop of as many cycles (bar 1.03), and over one cycle, beside the ratio of counted
              multiply-accumulates of the forwards. Loss and gradients are compared with the loop's first.
- decode      DARK on heatmaps (persons x 17 x 64 x 48), without the network. Bar: 8,000 persons a second and core.

CPU: one thread, process CPU time, float32. GPU: CUDA events, bfloat16 autocast (the prepared models have weights of
their own type), eager and compiled; the bar of decoding is for a core.
"""

from __future__ import annotations

import copy
import functools
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from common import (  # beside this file
    MODES,
    Row,
    conditions,
    loss_and_gradients,
    macs,
    paired_ratio,
    precision,
    progress,
    show,
    speed_parser,
    start,
    training_step,
    verdict,
    write,
)
from on_gpu.forms import timed
from torch import Tensor, nn

from cycledistill import CycleLoss, unwrap_cyclic
from cycledistill.integrations.coco import create_pose_model, list_pose_models
from cycledistill.integrations.coco.deploy import output_difference, prepare_for_inference
from cycledistill.integrations.coco.evaluation.decode import decode_heatmaps
from cycledistill.integrations.coco.losses.targets import heatmap_targets

MODELS = ("sdpose_t", "sdpose_s_v1", "sdpose_s_v2", "sdpose_b")
BARS = {"inference": 1.02, "training": 1.03, "decode": 8000}


def by_hand(model: Any, images: Tensor, target: Tensor, cycles: int) -> Tensor:
    """What a user would write: a TokenPose whose blocks run ``cycles`` times, the loss of every cycle."""
    tokens, positions = model.embed(images)
    loss = torch.zeros((), device=images.device)
    for _ in range(cycles):
        for number, block in enumerate(model.blocks):
            tokens = block(tokens, positions if number else None)
        loss = loss + F.mse_loss(model.mlp_head(tokens[:, : model.config.num_keypoints]), target)
    return loss


class Case:
    """One model and batch, plain and wrapped with the same weights."""

    def __init__(self, name: str, batch: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.device, self.batch = device, batch
        self.wrapped: Any = create_pose_model(name, distill="exits").to(device)
        self.plain: Any = copy.deepcopy(self.wrapped)
        handle: Any = self.plain.cyclic
        self.cycles: int = handle.cycles
        unwrap_cyclic(self.plain)
        self.images = torch.randn(batch, 3, *self.plain.config.image_size, device=device)
        with torch.no_grad():
            self.target = torch.rand_like(self.plain.eval()(self.images[:1])).expand(batch, -1, -1, -1).contiguous()
        self.criterion = CycleLoss(nn.MSELoss())

    def losses(self) -> dict[str, Callable[[], Tensor]]:
        """Loss of a training forward: the loop by hand, wrapped, and a single cycle."""
        return {
            "by hand": lambda: by_hand(self.plain, self.images, self.target, self.cycles),
            "wrapped": lambda: self.criterion(self.wrapped(self.images), self.target),
            "one cycle": lambda: F.mse_loss(self.plain(self.images), self.target),
        }

    def model_of(self, name: str) -> nn.Module:
        """The model whose gradients a loss makes."""
        return self.wrapped if name == "wrapped" else self.plain

    def check(self, losses: dict[str, Callable[[], Tensor]]) -> None:
        """Both sides must compute the same, or comparing their times means nothing."""
        wrapped = loss_and_gradients(self.wrapped, losses["wrapped"], self.device)
        by_hand = loss_and_gradients(self.plain, losses["by hand"], self.device)
        tolerance = 1e-2 if self.device.type == "cuda" else 1e-4
        torch.testing.assert_close(wrapped, by_hand, rtol=tolerance, atol=tolerance * float(by_hand.abs().max()))

    def mac_ratio(self) -> float:
        """Multiply-accumulates of a training forward of all cycles over those of one."""
        return macs(self.wrapped, self.images[:1]) / macs(self.plain, self.images[:1])


def measure_training(case: Case, compiled: bool, repeats: int) -> Row:
    """The wrapped step over the loop by hand and over one cycle."""
    case.plain.train()
    case.wrapped.train()
    losses = case.losses()
    if compiled:
        torch.compiler.reset()
        losses = {name: torch.compile(loss) for name, loss in losses.items()}
    case.check(losses)
    calls = {
        name: functools.partial(training_step, case.model_of(name), loss, case.device) for name, loss in losses.items()
    }
    seconds, busy = timed(calls, case.device, repeats, warmup=1)
    ratio, spread = paired_ratio(seconds, "wrapped", "by hand")
    over_one, _ = paired_ratio(seconds, "wrapped", "one cycle")
    rates = {f"images/s, {name}": case.batch / statistics.median(values) for name, values in seconds.items()}
    figures = {"ratio": ratio, "spread": spread, "over one cycle": over_one, "MACs over one cycle": case.mac_ratio()}
    return {"what": "training", **figures, **rates, **busy}


def measure_inference(case: Case, compiled: bool, repeats: int) -> Row:
    """The wrapped model over the plain one, and what preparation gains."""
    case.plain.eval()
    case.wrapped.eval()
    prepare = functools.partial(prepare_for_inference, case.wrapped, case.images[:2], sub_batch=None)
    prepared = {
        "prepared": prepare(dtype=torch.float32),
        "prepared bf16": prepare(dtype=torch.bfloat16, tolerance=1.0),
    }
    differs = {f"{name} differs by": output_difference(model, case.plain, case.images[:2])
               for name, model in prepared.items()}  # fmt: skip
    models: dict[str, Any] = {"plain": case.plain, "wrapped": case.wrapped, **prepared}
    if compiled:
        torch.compiler.reset()
        models = {name: torch.compile(model) for name, model in models.items()}
    last = case.images.to(memory_format=torch.channels_last)
    inputs = {"prepared": last, "prepared bf16": last.bfloat16()}

    def run(name: str) -> None:
        with precision(case.device, cast=name not in prepared):  # these have weights of their own type
            models[name](inputs.get(name, case.images))

    with torch.no_grad():
        seconds, busy = timed({name: functools.partial(run, name) for name in models}, case.device, repeats)
    ratio, spread = paired_ratio(seconds, "wrapped", "plain")
    gains = {f"speed-up, {name}": paired_ratio(seconds, "plain", name)[0] for name in prepared}
    rates = {f"images/s, {name}": case.batch / statistics.median(values) for name, values in seconds.items()}
    return {"what": "inference", "ratio": ratio, "spread": spread, **gains, **differs, **rates, **busy}


def measure_decode(persons: int, device: torch.device, repeats: int) -> Row:
    """Persons a second that DARK decodes."""
    generator = torch.Generator().manual_seed(0)
    joints = torch.rand(persons, 17, 2, generator=generator) * torch.tensor([180.0, 240.0]) + 6
    maps = heatmap_targets(joints, torch.ones(persons, 17), (256, 192), (64, 48))[0]
    maps = (maps + 0.02 * torch.rand(maps.shape, generator=generator)).to(device)
    timings, busy = timed({"dark": lambda: decode_heatmaps(maps)}, device, repeats)
    seconds = timings["dark"]
    low, _, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    rate = persons / statistics.median(seconds)
    spread = rate * (high - low) / (high + low)
    return {"what": "decode", "batch": persons, "persons/s": rate, "spread": spread, **busy}


def judge(row: Row, device: torch.device) -> bool | None:
    """Whether a row meets its bar, where it has one."""
    if row["what"] == "decode":
        return row["persons/s"] >= BARS["decode"] if device.type == "cpu" else None
    return row["ratio"] <= BARS[row["what"]]


def table(rows: list[Row]) -> str:
    """The rows as text."""
    lines = []
    for row in rows:
        judged = verdict(row["pass"])
        if row["what"] == "decode":
            lines.append(f"decode, {row['batch']} persons: {row['persons/s']:.0f} persons/s  {judged}")
            continue
        name = f"{row['model']:<14}{row['batch']:>4}  {'compiled' if row['compiled'] else 'eager':<9}{row['what']:<10}"
        rates = ", ".join(f"{key.partition(', ')[2]} {value:.1f}" for key, value in row.items() if "images/s" in key)
        extra = (
            f"{row['over one cycle']:.2f} of one cycle (MACs {row['MACs over one cycle']:.2f})"
            if row["what"] == "training"
            else f"prepared {row['speed-up, prepared']:.2f}x, bf16 {row['speed-up, prepared bf16']:.2f}x"
        )
        lines.append(f"{name} ratio {row['ratio']:.3f} +-{row['spread']:.3f} {judged:<5} {extra}; images/s: {rates}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write the JSON."""
    parser = speed_parser(__doc__, "pose_speed", MODELS, "cyclic heatmap models", repeats=7)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--mode", choices=tuple(MODES), help="default: eager; on a GPU both")
    parser.add_argument("--what", nargs="+", choices=tuple(BARS), default=list(BARS))
    options = parser.parse_args(argv)
    cyclic = [name for name in list_pose_models("sdpose") if not name.endswith(("_reg", "_ppt"))]
    unknown = sorted(set(options.models) - set(cyclic))
    if unknown:
        parser.error(f"--models {unknown[0]}: one of {', '.join(cyclic)} is expected")
    device = start(parser, options)
    mode = options.mode or ("both" if device.type == "cuda" else "eager")
    rows: list[Row] = []
    record: Row = {"conditions": conditions(device, options.repeats), "bars": BARS, "rows": rows}

    def add(row: Row) -> None:
        rows.append(row | {"pass": judge(row, device)})
        write(options.out, record)  # after each: a run that is stopped leaves what it has

    if "decode" in options.what:
        for persons in (32, 256):
            add(measure_decode(persons, device, 3 * options.repeats))
    for name in options.models:
        for batch in options.batch:
            for compiled in MODES[mode]:
                progress(name, f"batch {batch}", "compiled" if compiled else "eager")
                case = Case(name, batch, device)
                setting = {"model": name, "cycles": case.cycles, "batch": batch, "compiled": compiled}
                for what, measure in (("inference", measure_inference), ("training", measure_training)):
                    if what in options.what:
                        add(setting | measure(case, compiled, options.repeats))
    show(record, table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
