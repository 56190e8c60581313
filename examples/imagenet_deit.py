"""What cycles do to a vision transformer: on a CPU in two minutes, or DeiT-Tiny on ImageNet by the full recipe.

    pip install -e ".[all]"
    python examples/imagenet_deit.py                # scikit-learn's digits, five kinds of training: table and picture
    python examples/imagenet_deit.py --data /data/imagenet --config deit_tiny --output runs/a
    torchrun --nproc-per-node 4 examples/imagenet_deit.py --data /data/imagenet --config deit_tiny --output runs/a
    python examples/imagenet_deit.py --data /data/imagenet --output runs/a --resume auto   # go on where it stopped
    python examples/imagenet_deit.py --data /data/imagenet --evaluate runs/a               # accuracy at each exit

Without --data: one small timm model, trained in five ways from the same initial weights on the same batches, then
read at 1, 2 and 3 cycles. Options: --seeds, --steps, --output, --figure, --tune (how the learning rate was chosen).
CPU, one thread, no augmentation; 300 training images are over-fitted, so nothing here need hold on a large data set.
With --data the work is done by ``cycledistill.integrations.imagenet``: --model, --cycles, --distill, --set a.b=c
and the rest of --help. Not supported there: comparing the five arms in one command; start one run for each.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from matplotlib.figure import Figure
from scipy import stats
from sklearn.datasets import load_digits
from timm.models import VisionTransformer
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from cycledistill import CycleLoss, at_exit, unwrap_cyclic, wrap_cyclic
from cycledistill.cost.report import cost
from cycledistill.files import atomic_write
from cycledistill.integrations.imagenet.train import COMMAND

# What distinguishes the arms: the preset given to wrap_cyclic; None is the plain model. base_eq is base with its steps
# multiplied by what cycles were measured to cost, and the schedule stretched.
ARMS = {"base": None, "base_eq": None, "mct": "mct", "exits": "exits", "sdpose": "sdpose"}
CYCLES = 2  # while training
EXITS = (1, 2, 3)  # cycles at inference; three is one more than was trained
TRAIN_IMAGES = 300
BATCH = 32
WEIGHT_DECAY = 0.02
# Held-out accuracy that --tune --seeds 2 found at these rates (three folds of the training images): base 71.3, 75.8,
# 79.8, 75.3; sdpose 68.3, 73.3, 76.8, 73.5. With timm's default initialisation, not the ViT paper's, base reached 75.
LEARNING_RATES = (4e-3, 8e-3, 16e-3, 32e-3)
LEARNING_RATE = 16e-3

DEMO = {"seeds", "steps", "figure", "tune"}  # options of the comparison on digits

Split = tuple[Tensor, Tensor]  # images (B, 1, 8, 8) in [-1, 1], labels (B,)
Runs = Mapping[str, list[dict[str, Any]]]  # arm -> one record a seed

# What the text under the table answers, by paired differences: "exits@2-base@2" is exits read at two cycles less base
# read at two cycles.
QUESTIONS = {
    "Does one checkpoint answer at more cycles than one?": (
        "exits@2-base@2", "sdpose@2-base@2", "exits@3-base@3", "sdpose@3-base@3"
    ),
    "Does a task loss on every cycle matter for the first?": ("exits@1-mct@1", "sdpose@1-mct@1"),
    "Is the deployed single cycle better than the plain model?": ("exits@1-base@1", "sdpose@1-base@1"),
    "Does the token loss add to it?": ("sdpose@1-exits@1",),
    "Is it better than the plain model given the same training compute?": ("sdpose@1-base_eq@1", "mct@2-base_eq@1"),
}  # fmt: skip


def load_data() -> tuple[Split, Split]:
    """Scikit-learn's 1,797 digits by a fixed permutation: 300 to train on, 1,497 to test on."""
    digits = load_digits()
    order = np.random.RandomState(123).permutation(len(digits.target))
    images = torch.tensor(digits.images[order], dtype=torch.float32)[:, None] / 8 - 1
    labels = torch.tensor(digits.target[order])
    return (images[:TRAIN_IMAGES], labels[:TRAIN_IMAGES]), (images[TRAIN_IMAGES:], labels[TRAIN_IMAGES:])


def build_model(seed: int) -> VisionTransformer:
    """A ViT for 8 x 8 pixels: 16 patches and a class token of width 16, two blocks."""
    torch.manual_seed(seed)
    return VisionTransformer(
        img_size=8, patch_size=2, in_chans=1, num_classes=10, embed_dim=16, depth=2, num_heads=2, mlp_ratio=3,
        weight_init="jax",
    )  # fmt: skip


def train(model: nn.Module, data: Split, steps: int, seed: int, rate: float = LEARNING_RATE) -> float:
    """An ordinary training loop, the same for plain and wrapped models; returns its CPU seconds."""
    images, labels = data
    criterion = CycleLoss(nn.CrossEntropyLoss())  # a plain output goes straight to the task loss
    optimizer = create_optimizer_v2(model, "adamw", lr=rate, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.99), fused=True)
    warmup = max(1, steps // 20)
    schedule = LambdaLR(optimizer, lambda step: min((step + 1) / warmup, (1 + math.cos(math.pi * step / steps)) / 2))
    batches = torch.Generator().manual_seed(seed)  # of its own: every arm of a seed sees the same batches
    model.train()
    began = time.process_time()
    for _ in range(steps):
        index = torch.randperm(len(images), generator=batches)[:BATCH]
        loss = criterion(model(images[index]), labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return time.process_time() - began


@torch.no_grad()
def accuracy(model: nn.Module, data: Split) -> list[float]:
    """Percent right at each of EXITS; ``model`` is wrapped."""
    model.eval()
    right = []
    for cycles in EXITS:
        with at_exit(model, cycles):
            right.append(100 * (model(data[0]).argmax(dim=1) == data[1]).float().mean().item())
    return right


@torch.no_grad()
def check_deployed(model: nn.Module, images: Tensor) -> None:
    """The plain model that is taken back answers bit for bit like the wrapped one at one cycle."""
    wrapped = model.eval()(images)
    unwrap_cyclic(model)
    fresh = build_model(seed=0).eval()
    fresh.load_state_dict(model.state_dict())
    if type(model) is not type(fresh) or not all(torch.equal(one(images), wrapped) for one in (model, fresh)):
        raise AssertionError("the unwrapped model does not answer like the wrapped one at one cycle")


def run_arm(arm: str, seed: int, steps: int, train_data: Split, test_data: Split) -> dict[str, Any]:
    """Train one arm from one seed, read it at every exit, take the plain model back."""
    model = build_model(seed)
    if ARMS[arm] is not None:
        wrap_cyclic(model, cycles=CYCLES, distill=ARMS[arm])
    seconds = train(model, train_data, steps, seed)
    if ARMS[arm] is None:
        wrap_cyclic(model, cycles=1, distill=None)  # trained as it is; wrapped to be read at more cycles too
    measured = accuracy(model, test_data)
    check_deployed(model, test_data[0])
    return {"seed": seed, "steps": steps, "cpu_seconds": seconds, "accuracy": measured}


def measure_cost(data: Split, rounds: int = 9) -> float:
    """CPU time of an sdpose step over that of a base step: median of rounds in which the two take turns."""
    base, sdpose = build_model(seed=0), wrap_cyclic(build_model(seed=0), CYCLES, "sdpose")
    ratios = [train(sdpose, data, steps=25, seed=0) / train(base, data, steps=25, seed=0) for _ in range(rounds)]
    return float(np.median(ratios))


def run_study(seeds: int, steps: int) -> Runs:
    """Every arm from every seed; base_eq with as many steps as sdpose's training costs in steps of base."""
    train_data, test_data = load_data()
    longer = round(steps * measure_cost(train_data))
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for seed in range(seeds):
        for arm in ARMS:  # arms take turns, so that a busy moment of the machine meets all of them
            runs[arm].append(run_arm(arm, seed, longer if arm == "base_eq" else steps, train_data, test_data))
        found = ", ".join(f"{arm} {runs[arm][-1]['accuracy'][0]:.1f}" for arm in ARMS)
        print(f"seed {seed}, accuracy at one cycle: {found}", flush=True)
    return runs


def training_cost(runs: Runs, arm: str) -> float:
    """CPU time of an arm's training relative to base's of the same seed, median over the seeds."""
    pairs = zip(runs[arm], runs["base"], strict=True)
    return float(np.median([one["cpu_seconds"] / base["cpu_seconds"] for one, base in pairs]))


def accuracies(runs: Runs, arm: str) -> np.ndarray:
    """Accuracy of an arm, (seeds, exits)."""
    return np.array([run["accuracy"] for run in runs[arm]])


def compare(runs: Runs, comparison: str) -> dict[str, Any]:
    """A paired difference over the seeds, with its 95 % interval (Student's t)."""
    sides = [side.split("@") for side in comparison.split("-")]
    left, right = (accuracies(runs, arm)[:, EXITS.index(int(cycles))] for arm, cycles in sides)
    difference = left - right
    mean, count = float(difference.mean()), len(difference)
    half = float(stats.t.ppf(0.975, count - 1) * difference.std(ddof=1)) / math.sqrt(count)
    names = [f"{arm} at {cycles} cycle{'s' * (cycles != '1')}" for arm, cycles in sides]
    verdict = "ahead of" if mean - half > 0 else "behind" if mean + half < 0 else "not told apart from"
    return {"left": names[0], "verdict": verdict, "right": names[1], "mean": mean, "low": mean - half,
            "high": mean + half, "wins": int((difference > 0).sum()), "seeds": count}  # fmt: skip


def explain(runs: Runs) -> str:
    """What the numbers show: one sentence a comparison, worded by whether its interval leaves out 0."""
    sentence = "  {left} is {verdict} {right}: {mean:+.1f} points [{low:+.1f}, {high:+.1f}], "
    sentence += "higher in {wins} of {seeds} seeds."
    lines = []
    for question, comparisons in QUESTIONS.items():
        lines += [question, *(sentence.format(**compare(runs, comparison)) for comparison in comparisons)]
    count = sum(map(len, QUESTIONS.values()))
    lines.append(f"In brackets: 95 % intervals of the paired differences, not corrected for their number ({count}).")
    return "\n".join(lines)


def table(runs: Runs) -> str:
    """Accuracy at each exit, mean and standard deviation over the seeds, and what the training cost."""
    report = cost(build_model(seed=0), torch.zeros(1, 1, 8, 8), cycles=EXITS[-1])
    rows = [["", "steps", "training cost", *(f"{exit} cycle{'s' * (exit > 1)}" for exit in EXITS)]]
    for arm in ARMS:
        values = accuracies(runs, arm)
        spread = [f"{mean:.1f} ± {std:.1f}" for mean, std in zip(values.mean(0), values.std(0, ddof=1), strict=True)]
        rows.append([arm, str(runs[arm][0]["steps"]), f"{training_cost(runs, arm):.2f}", *spread])
    rows.append(["kMACs an image", "", "", *(f"{macs.total / 1e3:.0f}" for macs in report.exits)])
    rows.append(["... without attention matmuls", "", "", *(f"{macs.weights / 1e3:.0f}" for macs in report.exits)])
    return "\n".join(
        f"{row[0]:<30}{row[1]:>6}{row[2]:>15}" + "".join(f"{cell:>14}" for cell in row[3:]) for row in rows
    )


def draw(runs: Runs, path: Path) -> None:
    """Accuracy against inference cycles: means, with the standard deviation over the seeds as bars."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    looks = ("C7", "o"), ("k", "s"), ("C1", "^"), ("C2", "D"), ("C0", "v")
    for place, (arm, (color, marker)) in enumerate(zip(ARMS, looks, strict=True)):
        values = accuracies(runs, arm)
        axes.errorbar(
            np.array(EXITS) + 0.03 * (place - 2), values.mean(0), values.std(0, ddof=1),
            color=color, marker=marker, markersize=5, capsize=3, linewidth=1.5,
            label=f"{arm} (training cost {training_cost(runs, arm):.1f})",
        )  # fmt: skip
    axes.set(xticks=EXITS, xlabel="cycles at inference", ylabel="test accuracy, %")
    title = f"Digits, {TRAIN_IMAGES} training images: mean ± std over {len(runs['base'])} seeds"
    axes.set_title(title, fontsize="medium")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, loc="lower left", fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def tune(seeds: int, steps: int) -> None:
    """How LEARNING_RATE was chosen: three-fold cross-validation on the training images alone."""
    (images, labels), _ = load_data()
    folds = torch.arange(len(images)) % 3
    for arm in ("base", "sdpose"):
        for rate in LEARNING_RATES:
            found = []
            for seed in range(seeds):
                for fold in range(3):
                    model = wrap_cyclic(build_model(seed), CYCLES if ARMS[arm] else 1, ARMS[arm])
                    train(model, (images[folds != fold], labels[folds != fold]), steps, seed, rate)
                    found.append(accuracy(model, (images[folds == fold], labels[folds == fold]))[0])
            print(f"{arm:<8} learning rate {rate:.3f}: {np.mean(found):.1f} ± {np.std(found, ddof=1):.1f}", flush=True)


def save_results(runs: Runs, path: Path) -> None:
    """Every run and comparison as JSON."""
    record = {
        "data": f"scikit-learn digits, {TRAIN_IMAGES} train / {1797 - TRAIN_IMAGES} test",
        "device": f"CPU ({platform.machine()}), one thread",
        "versions": {"torch": torch.__version__, "timm": timm.__version__, "python": platform.python_version()},
        "exits": EXITS,
        "learning_rate": LEARNING_RATE,
        "training_cost": {arm: training_cost(runs, arm) for arm in runs},
        "runs": runs,
        "comparisons": [compare(runs, comparison) for pairs in QUESTIONS.values() for comparison in pairs],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda file: file.write_text(json.dumps(record, indent=1), encoding="utf-8"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison, or hand over to the ImageNet recipe."""
    parser = COMMAND.parser()
    parser.prog, parser.description = Path(sys.argv[0]).name, __doc__
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    demo = parser.add_argument_group("the comparison on digits (without --data)")
    demo.add_argument("--seeds", type=int, default=6, help="paired seeds, at least 2 (default %(default)s)")
    demo.add_argument("--steps", type=int, default=800, help="training steps of base (default %(default)s)")
    demo.add_argument("--figure", type=Path, metavar="FILE", help="the picture (default accuracy.png in --output)")
    demo.add_argument("--tune", action="store_true", help="only show how the learning rate was chosen")
    args = parser.parse_args(argv)
    given = {name for name, value in vars(args).items() if value != parser.get_default(name)} - {"output"}
    recipe = ", ".join("--" + name.replace("_", "-") for name in sorted(given - DEMO))
    if recipe and (given & DEMO or not given & {"data", "config", "evaluate", "resume"}):
        parser.error(
            f"{recipe}: for the ImageNet recipe, which needs --data and knows no --{', --'.join(sorted(DEMO))}"
        )
    if recipe:
        return COMMAND.main(argv)
    if args.seeds < 2 or args.steps < 1:
        parser.error(
            f"--seeds {args.seeds} --steps {args.steps}: at least 2 seeds, for a spread, and 1 step are needed"
        )
    torch.set_num_threads(1)  # tensors this small are slower on more
    if args.tune:
        tune(args.seeds, args.steps)
        return 0
    output = Path(args.output or "runs/imagenet_deit")
    picture, numbers = args.figure or output / "accuracy.png", output / "results.json"
    runs = run_study(args.seeds, args.steps)
    print(f"\n{table(runs)}\n\n{explain(runs)}\n")
    print(f"All {sum(map(len, runs.values()))} models were unwrapped, and answer bit for bit as they did at one cycle.")
    save_results(runs, numbers)
    draw(runs, picture)
    print(f"Picture: {picture}   Numbers: {numbers}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
