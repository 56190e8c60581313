"""What does wrapping cost over a loop written by hand? Time and memory of a training step, and of eval.

    python benchmarks/overhead.py                    # on the GPU if there is one, else on the CPU
    python benchmarks/overhead.py --device cpu --models deit_tiny_patch16_224 --cycles 2 --repeats 5

Compared in one process, in interleaved rounds whose order turns each time; a figure is the median over the rounds of
the ratio within a round. A training step is forward, cross-entropy of every cycle, backward; no optimizer. Both sides
are checked to give the same loss and gradients first. The hand-written loop runs the parts of the timm model itself.

- training   wrapped (distillation off) over the hand-written loop, eager and compiled. Bar 1.03.
- eval       wrapped over bare, eager and compiled. Bar 1.02.
- memory     bytes saved for the backward, wrapped over hand-written; on a GPU the peak of the allocator too. Bar 1.02.
- sdpose     the wrapped step with the preset "sdpose" over the one without distillation. No bar.

CPU: one thread, process CPU time, float32. GPU: CUDA events, bfloat16 autocast, a small and a large batch.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import timm
import torch
import torch.nn.functional as F
from common import (  # beside this file
    MODES,
    Row,
    best,
    conditions,
    loss_and_gradients,
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
from torch import Tensor, nn

from cycledistill import CycleLoss, wrap_cyclic
from cycledistill.cost.timing import interleaved

MODELS = ("deit_tiny_patch16_224", "vit_small_patch16_224")
BARS = {"training": 1.03, "eval": 1.02, "saved bytes": 1.02, "peak bytes": 1.02}
Loss = Callable[[], Tensor]


def by_hand(model: Any, images: Tensor, target: Tensor, cycles: int) -> Tensor:
    """What a user would write: a timm vision transformer whose blocks run ``cycles`` times, the loss of every cycle."""
    x = model.patch_embed(images)
    x = model._pos_embed(x)
    x = model.patch_drop(x)
    x = model.norm_pre(x)
    loss = torch.zeros((), device=images.device)
    for _ in range(cycles):
        x = model.blocks(x)
        loss = loss + F.cross_entropy(model.forward_head(model.norm(x)), target)
    return loss


class Case:
    """One model, number of cycles and batch: the callables that are compared."""

    def __init__(self, name: str, cycles: int, batch: int, device: torch.device, **options: Any) -> None:
        torch.manual_seed(0)
        self.device, self.cycles = device, cycles
        self.bare: Any = timm.create_model(name, **options).to(device)
        self.wrapped: Any = wrap_cyclic(copy.deepcopy(self.bare), cycles, "exits")
        size = self.bare.patch_embed.img_size
        self.images = torch.randn(batch, 3, *size, device=device)
        self.target = torch.randint(self.bare.num_classes, (batch,), device=device)
        self.criterion = CycleLoss(nn.CrossEntropyLoss())

    def losses(self) -> dict[str, Loss]:
        """Loss of a training forward, hand-written and wrapped."""
        return {
            "by hand": lambda: by_hand(self.bare, self.images, self.target, self.cycles),
            "wrapped": lambda: self.criterion(self.wrapped(self.images), self.target),
        }

    def check(self, losses: dict[str, Loss], tolerance: float) -> None:
        """Both sides must compute the same, or comparing their times means nothing."""
        wrapped = loss_and_gradients(self.wrapped, losses["wrapped"], self.device)
        by_hand = loss_and_gradients(self.bare, losses["by hand"], self.device)
        torch.testing.assert_close(wrapped, by_hand, rtol=tolerance, atol=tolerance)


def measure(name: str, cycles: int, batch: int, device: torch.device, compiled: bool, repeats: int) -> list[Row]:
    """All rows of one model, number of cycles, batch and mode."""
    case = Case(name, cycles, batch, device)
    case.bare.train()
    case.wrapped.train()
    losses = case.losses()
    evaluations: dict[str, Callable[[], Any]] = {
        "bare eval": lambda: case.bare(case.images),
        "wrapped eval": lambda: case.wrapped(case.images),
    }
    if compiled:
        torch.compiler.reset()
        losses = {key: torch.compile(loss) for key, loss in losses.items()}
        evaluations = {key: torch.compile(call) for key, call in evaluations.items()}
    case.check(losses, 1e-2 if device.type == "cuda" else 1e-4)
    setting = {
        "model": name,
        "cycles": cycles,
        "batch": batch,
        "precision": "bfloat16 autocast" if device.type == "cuda" else "float32",
        "compiled": compiled,
    }
    steps = {
        "by hand": lambda: training_step(case.bare, losses["by hand"], device),
        "wrapped": lambda: training_step(case.wrapped, losses["wrapped"], device),
    }
    seconds = interleaved(steps, device, repeats, warmup=2)
    rows = [figures("training", seconds, "wrapped", "by hand")]
    if not compiled:
        rows += memory(case, losses, steps)
        rows.append(distillation(case, repeats))
    if cycles == 2:  # eval runs one cycle, however many were trained
        rows.append(_evaluation(case, evaluations, repeats))
    return [setting | row for row in rows]


def figures(what: str, seconds: dict[str, list[float]], name: str, over: str) -> Row:
    """The time of one call over that of another."""
    ratio, spread = paired_ratio(seconds, name, over)
    return {"what": what, "ratio": ratio, "spread": spread, **best(seconds)}


def _evaluation(case: Case, calls: dict[str, Callable[[], Any]], repeats: int) -> Row:
    case.bare.eval()
    case.wrapped.eval()
    with torch.no_grad(), precision(case.device):
        seconds = interleaved(calls, case.device, 3 * repeats, warmup=2)
    case.bare.train()
    case.wrapped.train()
    return figures("eval", seconds, "wrapped eval", "bare eval")


def distillation(case: Case, repeats: int) -> Row:
    """The wrapped step with distillation over the one without."""
    loss = case.losses()["wrapped"]

    def step(scheme: str) -> None:
        case.wrapped.cyclic.distill = scheme
        training_step(case.wrapped, loss, case.device)

    calls = {"sdpose": lambda: step("sdpose"), "exits": lambda: step("exits")}
    return figures("sdpose", interleaved(calls, case.device, repeats, warmup=2), "sdpose", "exits")


def memory(case: Case, losses: dict[str, Loss], steps: dict[str, Callable[[], Any]]) -> list[Row]:
    """Bytes kept for the backward, and on a GPU the peak of the allocator, wrapped over hand-written."""
    saved = {}
    for name, model in (("by hand", case.bare), ("wrapped", case.wrapped)):
        with precision(case.device):
            saved[name] = saved_bytes(losses[name], model)
    rows = [{"what": "saved bytes", "ratio": saved["wrapped"] / saved["by hand"], "spread": 0.0, **saved}]
    if case.device.type == "cuda":
        peaks = {}
        for name, step in steps.items():
            case.bare.zero_grad(set_to_none=True)
            case.wrapped.zero_grad(set_to_none=True)
            torch.cuda.reset_peak_memory_stats(case.device)
            step()
            peaks[name] = torch.cuda.max_memory_allocated(case.device)
        rows.append({"what": "peak bytes", "ratio": peaks["wrapped"] / peaks["by hand"], "spread": 0.0, **peaks})
    return rows


def saved_bytes(loss: Loss, model: nn.Module) -> int:
    """Bytes of all distinct storages, other than parameters, that a forward keeps for its backward."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor  # the graph holds it, so no address is used twice while the loss lives

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss()
    total = sum(kept.values())
    del value
    return total


def table(rows: list[Row]) -> str:
    """The rows as text, with a verdict against the bar where there is one."""
    lines = [f"{'model':<26}{'N':>2}{'batch':>6}  {'mode':<9}{'what':<12}{'ratio':>7}{'+-':>7}  {'bar':<6}"]
    for row in rows:
        mode = "compiled" if row["compiled"] else "eager"
        judged = verdict(row["pass"], f"{BARS.get(row['what'], 0):.2f}")
        lines.append(
            f"{row['model']:<26}{row['cycles']:>2}{row['batch']:>6}  {mode:<9}{row['what']:<12}"
            f"{row['ratio']:>7.3f}{row['spread']:>7.3f}  {judged}".rstrip()
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write the JSON."""
    parser = speed_parser(__doc__, "overhead", MODELS, "timm vision transformers", repeats=11)
    parser.add_argument("--cycles", nargs="+", type=int, default=[2, 3])
    parser.add_argument("--batch", nargs="+", type=int, help="default: 2 on the CPU, 4 and 256 on a GPU")
    parser.add_argument("--mode", choices=tuple(MODES), default="both")
    options = parser.parse_args(argv)
    device = start(parser, options)
    batches = options.batch or ([4, 256] if device.type == "cuda" else [2])
    record: Row = {"conditions": conditions(device, options.repeats), "bars": BARS, "rows": []}
    for name in options.models:
        for batch in batches:
            for compiled in MODES[options.mode]:
                for cycles in options.cycles:
                    progress(name, f"batch {batch}", "compiled" if compiled else "eager", f"{cycles} cycles")
                    rows = measure(name, cycles, batch, device, compiled, options.repeats)
                    for row in rows:
                        row["pass"] = row["ratio"] <= BARS[row["what"]] if row["what"] in BARS else None
                    record["rows"] += rows
                    write(options.out, record)  # after each case: a run that is stopped leaves what it has
    show(record, table(record["rows"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
