"""What does adaptive inference cost over the exits that it uses, and what does it gain?

    export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1000000000000      # for a CPU with glibc: see below
    python benchmarks/adaptive.py                        # on the GPU if there is one, else on the CPU
    python benchmarks/adaptive.py --device cpu --models deit_tiny_patch16_224 --repeats 5 --seeds 1

- overhead   one adaptive call on a batch of 64, half of whose samples leave at exit 1 and a quarter each at 2 and 3,
             over the sum of what the fixed exits take for the rows that they serve (each exit called on its rows
             alone). In interleaved rounds whose order turns each time; a figure is the median over the rounds of the
             ratio within a round. Random weights and images; rows are compared with the fixed exits first. Bar 1.05.
             Beside it the same ratio of counted multiply-accumulates: more tails, nothing else.
             glibc gives large blocks back to the system after each use, and asks for them anew, page by page: that
             costs a plain model more at a batch of 64 than at 32 and twice 16, and the fixed exits run on those. The
             settings above let it keep them.
- digits     a small vision transformer trained for three cycles (preset "exits") on 300 of scikit-learn's digits,
             thresholds found on 500 others for each budget, accuracy on the 997 that are left, beside the fixed exits;
             means over the seeds. Easy pictures and a model of 6,000 parameters: it shows that the parts work together,
             and need not hold elsewhere.
"""

from __future__ import annotations

import os
import statistics
import sys
from typing import Any

import timm
import torch
from common import (
    Row,
    conditions,
    macs,
    paired_ratio,
    progress,
    show,
    speed_parser,
    start,
    verdict,
    write,
)  # beside this file
from sklearn.datasets import load_digits
from torch import Tensor, nn

from cycledistill import CycleLoss, at_exit, wrap_cyclic
from cycledistill.adaptive import AdaptiveExit
from cycledistill.cost.timing import interleaved

MODELS = ("deit_tiny_patch16_224", "sdpose_t")
EXITS = (1, 2, 3)
SHARES = (0.5, 0.25, 0.25)
BATCH = 64
BAR = 1.05
POINTS = 7


class Case:
    """One model whose samples leave as `SHARES` says, and its fixed exits."""

    def __init__(self, name: str, batch: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.model = build(name).to(device).eval()
        side = self.model.config.image_size if hasattr(self.model, "config") else self.model.patch_embed.img_size
        self.images = torch.randn(batch, 3, *side, device=device)
        leave = torch.tensor([0] * round(batch * SHARES[0]) + [1] * round(batch * SHARES[1]))
        self.places = torch.cat([leave, leave.new_full((batch - len(leave),), 2)]).to(device)
        self.places = self.places[torch.randperm(batch, generator=torch.Generator().manual_seed(0)).to(device)]
        self.rows = [(self.places == place).nonzero().flatten() for place in range(len(EXITS))]
        self.adaptive = AdaptiveExit(self.model, EXITS, self.sure, threshold=0.5)

    def sure(self, output: Tensor) -> Tensor:
        """Confidence 1 for the samples whose turn it is; costs no less than looking at the output would."""
        going = self.places if len(output) == len(self.places) else self.places[self.places > 0]
        return (going == going.min()).float() + 0 * output.flatten(1).amax(1)

    def by_fixed_exits(self) -> list[Tensor]:
        """Each exit on the rows that it serves."""
        outputs = []
        for each, rows in zip(EXITS, self.rows, strict=True):
            self.model.cyclic.exit = each  # at_exit looks through all modules, which is not to be timed
            outputs.append(self.model(self.images[rows]))
        self.model.cyclic.exit = 1
        return outputs

    def check(self) -> None:
        """Both sides must compute the same, or comparing their times means nothing."""
        outputs, reached = self.adaptive(self.images, return_exits=True)
        assert torch.equal(reached, self.places + 1)
        for rows, expected in zip(self.rows, self.by_fixed_exits(), strict=True):
            torch.testing.assert_close(outputs[rows], expected, rtol=1e-3, atol=1e-3)


def build(name: str) -> Any:
    """A wrapped model by its name in timm, or in the integration for poses."""
    if timm.is_model(name):
        return wrap_cyclic(timm.create_model(name), len(EXITS), "exits")
    from cycledistill.integrations.coco import create_pose_model

    return create_pose_model(name, distill="exits")


@torch.no_grad()
def measure_overhead(name: str, batch: int, device: torch.device, repeats: int) -> Row:
    """One row: the adaptive call over the fixed exits that it uses."""
    case = Case(name, batch, device)
    case.check()
    calls = {"adaptive": lambda: case.adaptive(case.images), "fixed": case.by_fixed_exits}
    seconds = interleaved(calls, device, repeats)
    ratio, spread = paired_ratio(seconds, "adaptive", "fixed")
    report = case.adaptive.mean_cost()
    fixed = sum(share * cost for share, cost in zip(SHARES, fixed_costs(case), strict=True))
    return {
        "model": name,
        "batch": batch,
        "shares": SHARES,
        "ratio": ratio,
        "spread": spread,
        "MACs over fixed": report / fixed,
        "seconds": {key: statistics.median(values) for key, values in seconds.items()},
        "pass": ratio <= BAR,
    }


def fixed_costs(case: Case) -> list[float]:
    """Of each exit with one tail, as multiples of one cycle."""
    counted = []
    for each in EXITS:
        with at_exit(case.model, each):
            counted.append(macs(case.model, case.images[:1]))
    return [each / counted[0] for each in counted]


def digits() -> dict[str, tuple[Tensor, Tensor]]:
    """Scikit-learn's 1,797 digits by a fixed permutation: to train on, to find thresholds on, to test on."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(123))
    images = torch.tensor(data.images, dtype=torch.float32)[order, None] / 8 - 1
    labels = torch.tensor(data.target)[order]
    spans = {"train": slice(0, 300), "held out": slice(300, 800), "test": slice(800, None)}
    return {name: (images[span], labels[span]) for name, span in spans.items()}


def trained(data: tuple[Tensor, Tensor], seed: int, steps: int) -> Any:
    """A small vision transformer, trained for three cycles."""
    torch.manual_seed(seed)
    model: Any = timm.models.VisionTransformer(
        img_size=8, patch_size=2, in_chans=1, num_classes=10, embed_dim=16, depth=2, num_heads=2, mlp_ratio=3,
        weight_init="jax",
    )  # fmt: skip
    wrap_cyclic(model, len(EXITS), "exits").train()
    criterion = CycleLoss(nn.CrossEntropyLoss())
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3, weight_decay=0.02, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps, pct_start=0.05)
    images, labels = data
    for _ in range(steps):
        index = torch.randperm(len(images))[:32]
        loss = criterion(model(images[index]), labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def measure_digits(seeds: int, steps: int) -> list[Row]:
    """The curve of each seed."""
    data = digits()
    rows = []
    for seed in range(seeds):
        progress("digits", f"seed {seed}")
        adaptive = AdaptiveExit(trained(data["train"], seed, steps), EXITS)
        curve = adaptive.curve([data["test"]], points=POINTS, held_out=[data["held out"]])
        rows.append({"seed": seed, **curve.to_dict()})
    return rows


def table(overheads: list[Row], studies: list[Row]) -> str:
    """Both parts as text."""
    lines = [
        f"{row['model']:<24}batch {row['batch']}  over the fixed exits {row['ratio']:.3f} +-{row['spread']:.3f} "
        f"(MACs {row['MACs over fixed']:.4f})  {verdict(row['pass'], BAR)}"
        for row in overheads
    ]
    if studies:
        lines += ["", f"digits, mean over {len(studies)} seeds", f"{'':<12}{'cost':>8}{'accuracy':>10}{'spread':>9}"]
    for points in zip(*(study["rows"] for study in studies), strict=True):
        name = "adaptive" if points[0]["fixed"] is None else f"exit {points[0]['fixed']}"
        accuracies = [100 * point["accuracy"] for point in points]
        spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
        cost = statistics.mean(point["cost"] for point in points)
        lines.append(f"{name:<12}{cost:>8.3f}{statistics.mean(accuracies):>10.2f}{spread:>9.2f}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure both parts; 1 where a bar is missed."""
    parser = speed_parser(__doc__, "adaptive", MODELS, "names of timm or of pose models", repeats=7)
    parser.add_argument("--batch", type=int, default=BATCH, help="images of the overhead's batch")
    parser.add_argument("--seeds", type=int, default=5, help="models trained on digits; 0 leaves this part out")
    parser.add_argument("--steps", type=int, default=800, help="training steps on digits")
    options = parser.parse_args(argv)
    device = start(parser, options)
    overheads = []
    for name in options.models:
        progress("overhead", name)
        overheads.append(measure_overhead(name, options.batch, device, options.repeats))
    studies = measure_digits(options.seeds, options.steps)
    kept = {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")}
    record = {
        "conditions": conditions(device, options.repeats) | {"malloc": kept},
        "bar": BAR,
        "overhead": overheads,
        "digits": studies,
    }
    show(record, table(overheads, studies))
    write(options.out, record)
    return 0 if all(row["pass"] for row in overheads) else 1


if __name__ == "__main__":
    sys.exit(main())
