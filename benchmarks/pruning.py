"""What does dropping tokens save? The measured speed-up beside the one that the counted work promises.

    python benchmarks/pruning.py                    # on the GPU if there is one, else on the CPU
    python benchmarks/pruning.py --device cpu --models tokenpose_s_v1 --batch 32 --repeats 5

A model against a copy of it under ``wrap_pruning`` (layers 3, 6, 9, keep 0.7), in one process, in interleaved rounds
whose order turns each time; a speed-up is the median over the rounds of the ratio within a round.

- stack   the blocks alone, on random tokens: forward, and forward with backward.
- model   all of it: eval forward (at exit N), and a training step (N cycles, preset "sdpose", no optimizer).

N is the number of cycles: the first drops tokens, the others run on the kept tokens. "MACs" is the ratio of
multiply-accumulates of the two forwards, attention counted; "reached" is the speed-up over that ratio. Bar: the stack's
forward and training at 32 images reach 0.85.

CPU: one thread, process CPU time, float32. GPU: CUDA events, bfloat16 autocast, larger batches (no bar).
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import timm
import torch
from common import (  # beside this file
    Row,
    best,
    conditions,
    macs,
    paired_ratio,
    precision,
    progress,
    show,
    speed_parser,
    start,
    verdict,
    write,
)
from torch import Tensor

from cycledistill import wrap_cyclic, wrap_pruning
from cycledistill.cost.timing import interleaved
from cycledistill.integrations.coco import create_pose_model, list_pose_models

MODELS = ("tokenpose_s_v1", "deit_tiny_patch16_224")
LAYERS, KEEP, BAR, BAR_BATCH = (3, 6, 9), 0.7, 0.85, 32
PARTS = ("stack forward", "stack training", "model forward", "model training")


class Case:
    """One model, plain and pruned, at one batch and number of cycles."""

    def __init__(self, name: str, batch: int, cycles: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.cycles, self.device = cycles, device
        pose = name in list_pose_models()
        plain: Any = (create_pose_model(name) if pose else timm.create_model(name)).to(device)
        height, width = plain.config.image_size if pose else plain.patch_embed.img_size
        self.images = torch.randn(batch, 3, height, width, device=device)
        with torch.no_grad():
            tokens, positions = (
                plain.embed(self.images[:1]) if pose else (plain._pos_embed(plain.patch_embed(self.images[:1])), None)
            )
        self.tokens, self.positions = torch.randn(batch, *tokens.shape[1:], device=device), positions
        pruned = wrap_pruning(copy.deepcopy(plain), LAYERS, KEEP, query="keypoint" if pose else "prefix")
        self.models: dict[str, Any] = {"plain": plain, "pruned": pruned}
        for model in self.models.values():
            wrap_cyclic(model, cycles, "sdpose")
            model.cyclic.exit = cycles

    def stack(self, model: Any) -> Tensor:
        """The blocks, as often as there are cycles."""
        x = self.tokens
        for _ in range(self.cycles):
            for number, block in enumerate(model.blocks):
                x = block(x) if self.positions is None else block(x, self.positions if number else None)
        return x

    def loss(self, model: Any) -> Tensor:
        """A scalar that needs every cycle's output and token."""
        out = model(self.images)
        return sum((each.float().square().mean() for each in out.outputs), start=sum(out.losses.values()))

    def calls(self, what: str, form: Callable[[Any], Any] = lambda call: call) -> dict[str, Callable[[], Any]]:
        """What is timed, one callable a model; ``form`` makes something else of its forward, such as a compiled one."""
        for model in self.models.values():
            model.train(what == "model training")
        return {name: self._call(what, model, form) for name, model in self.models.items()}

    def _call(self, what: str, model: Any, form: Callable[[Any], Any]) -> Callable[[], Any]:
        trains = what.endswith("training")

        def forward() -> Tensor:
            if what.startswith("stack"):
                value = self.stack(model)
                return value.float().square().mean() if trains else value
            return self.loss(model) if trains else model(self.images)

        formed = form(forward)

        def run() -> None:
            model.zero_grad(set_to_none=True)
            with precision(self.device), nullcontext() if trains else torch.no_grad():
                value = formed()
            if trains:
                value.backward()

        return run

    def mac_ratio(self, what: str) -> float:
        """Multiply-accumulates of the plain forward over those of the pruned one."""
        stack = what.startswith("stack")
        plain, pruned = (
            macs(each, each, forward=self.stack) if stack else macs(each, self.images) for each in self.models.values()
        )
        return plain / pruned


def measure(case: Case, repeats: int) -> list[Row]:
    """All rows of a case."""
    return [figures(case, what, interleaved(case.calls(what), case.device, repeats)) for what in PARTS]


def figures(case: Case, what: str, seconds: dict[str, list[float]]) -> Row:
    """What the times of the calls say of one part."""
    ratio = case.mac_ratio(what)
    speedup, spread = paired_ratio(seconds, "plain", "pruned")
    row = {"what": what, "macs": ratio, "speed-up": speedup, "spread": spread, "reached": speedup / ratio}
    return row | best(seconds)


def table(rows: list[Row]) -> str:
    """The rows as text, with a verdict where there is a bar."""
    head = f"{'model':<24}{'batch':>6}{'N':>3}  {'what':<16}{'MACs':>6}{'speed-up':>10}{'+-':>7}{'reached':>9}"
    lines = [head]
    for row in rows:
        judged = "" if row["pass"] is None else f"  {verdict(row['pass'], BAR)}"
        lines.append(
            f"{row['model']:<24}{row['batch']:>6}{row['cycles']:>3}  {row['what']:<16}{row['macs']:>6.2f}"
            f"{row['speed-up']:>10.2f}{row['spread']:>7.2f}{row['reached']:>9.3f}{judged}"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write the JSON."""
    parser = speed_parser(__doc__, "pruning", MODELS, "pose models and timm vision transformers", repeats=7)
    parser.add_argument("--cycles", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batch", nargs="+", type=int, help="default: 1, 8 and 32 on the CPU, 1, 32 and 256 on a GPU")
    options = parser.parse_args(argv)
    device = start(parser, options)
    record: Row = {"conditions": conditions(device, options.repeats), "layers": LAYERS, "keep": KEEP, "bar": BAR}
    record["rows"] = rows = []
    for name in options.models:
        for batch in options.batch or ([1, 32, 256] if device.type == "cuda" else [1, 8, 32]):
            for cycles in options.cycles:
                progress(name, f"batch {batch}", f"{cycles} cycles")
                setting = {"model": name, "batch": batch, "cycles": cycles}
                rows += [setting | row for row in measure(Case(name, batch, cycles, device), options.repeats)]
    for row in rows:
        judged = device.type == "cpu" and row["batch"] == BAR_BATCH and row["what"].startswith("stack")
        row["pass"] = row["reached"] >= BAR if judged else None
    show(record, table(rows))
    write(options.out, record)
    return 0 if all(row["pass"] is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
