"""Which axis of what a forward recorded is the batch, found by a second forward of another size, and rows of it taken.

A forward that goes on with some of its samples needs their rows of everything that was recorded: what modules before
the stack returned, what blocks take beside their tokens, the tokens. A table that all samples share must stay whole,
also where it is as long as the batch. Shapes of one forward cannot tell the two apart; those of two can: what is of the
batch changes with its size, and what is shared does not. The second forward has a few rows of the same inputs, so that
values are compared as well: a row that is another there depends on its neighbours, and such a model is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cycledistill.adaptive.outputs import at
from cycledistill.cycle import guards
from cycledistill.cycle.call import EarlyCall, ModelCall
from cycledistill.cycle.recording import Recording
from cycledistill.cycle.replay import Replay
from cycledistill.cycle.snapshot import ObjectSnapshot, Snapshot, objects_with_hidden_tensors, same_value
from cycledistill.errors import StackError
from cycledistill.plugin.running import has_autocast
from cycledistill.plugin.torch_private import (
    tree_leaves_with_path,
    tree_unflatten,
)

Axes = tuple[int | None, ...]
"""For each leaf of a value: which of its axes is the batch; ``None`` for what all samples share; or `UNUSED`."""

UNUSED = -1
"""For a leaf of the first pass that nothing needs any more: a state, which every cycle makes anew."""

MARK = "_cycledistill"
"""How names of attributes begin that plug-ins leave on tensors."""


class Mixed(StackError):
    """What a model computes for one sample cannot be told, or depends on the others."""


@dataclass(frozen=True)
class Layout:
    """Where the batch is in each part of a recording, and the sizes of everything else.

    Attributes:
        axes: For each part, the axis of each leaf.
        forms: For each part, its structure and its leaves' shapes with the batch left out.
    """

    axes: tuple[Axes, ...]
    forms: tuple[Any, ...]

    def fits(self, parts: Sequence[Snapshot], batch: int) -> bool:
        """Whether the parts of another recording, of ``batch`` samples, are the same."""
        return len(parts) == len(self.axes) and all(
            form_of(part, axes, batch) == form for part, axes, form in zip(parts, self.axes, self.forms, strict=True)
        )


def parts_of(replay: Replay) -> list[Snapshot]:
    """What further cycles and tails need of a forward, in the order of `names_of`."""
    parts = []
    for early in replay.recording.early:
        parts += [early.output, *(content for _, content in early.filled)]
    return [*parts, *(call.given for call in replay.recording.calls), replay.outputs[-1]]


def names_of(recording: Recording) -> list[tuple[str, set[int]]]:
    """The parts in words, and the leaves of each that nothing needs any more."""
    names: list[tuple[str, set[int]]] = []
    for early in recording.early:
        names.append(("what a module before the stack returned", set()))
        names += [("what a module before the stack put into a list or a dict", set())] * len(early.filled)
    names += [(f"what block {index} takes", call.state_leaves()) for index, call in enumerate(recording.calls)]
    return [*names, ("what the stack returned", set())]


def compare(
    parts: Sequence[Snapshot],
    few: Sequence[Snapshot],
    names: Sequence[tuple[str, set[int]]],
    batch: int,
    rows: Tensor,
    rounding: float,
) -> Layout:
    """Find the batch in the parts of a forward of ``batch`` samples, by those of the samples at ``rows`` alone.

    Raises:
        Mixed: Something changes with the batch in another way than by one row a sample.
    """
    if len(parts) != len(few):
        raise Mixed(
            f"the model's forward calls other modules for {len(rows)} samples than for {batch}. {_ALONE}: call the "
            "same modules for every batch, whatever its size and content"
        )
    axes = tuple(
        _axes_of(name, part, other, batch, rows, unused, rounding)
        for (name, unused), part, other in zip(names, parts, few, strict=True)
    )
    return Layout(axes, tuple(form_of(part, each, batch) for part, each in zip(parts, axes, strict=True)))


def take_samples(replay: Replay, layout: Layout, rows: Tensor) -> None:
    """Let further cycles and tails go on with the samples at ``rows`` of those that ran so far."""
    replay.check_state()
    guards.check_unchanged_arguments(replay.recording.path, replay.recording.calls)
    recording = replay.recording
    taken = iter(take_parts(parts_of(replay), layout, rows))
    recording.early = [
        EarlyCall(early.key, next(taken), [(position, next(taken)) for position, _ in early.filled])
        for early in recording.early
    ]
    for call in recording.calls:
        call.given = next(taken)
    replay.outputs = [*replay.outputs[:-1], next(taken)]


def take_parts(parts: Sequence[Snapshot], layout: Layout, rows: Tensor) -> list[Snapshot]:
    """The samples at ``rows`` of every part."""
    taken = _Rows(rows)
    return [taken.of(part, axes) for part, axes in zip(parts, layout.axes, strict=True)]


def take_inputs(call: ModelCall, axes: Axes, rows: Tensor) -> ModelCall:
    """The same call with the samples at ``rows`` alone."""
    args, kwargs = _Rows(rows).of(Snapshot((call.args, call.kwargs)), axes).value()
    return replace(call, args=args, kwargs=kwargs)


class _Rows:
    """Takes rows of tensors, each tensor once: most models hand the same to all blocks."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self.known: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def of(self, value: Snapshot, axes: Axes) -> Snapshot:
        leaves = [
            leaf if axis in (None, UNUSED) else self._take(leaf, axis)
            for leaf, axis in zip(value.leaves, axes, strict=True)
        ]
        return Snapshot(tree_unflatten(leaves, value.spec))

    def _take(self, whole: Tensor, axis: int) -> Tensor:
        key = id(whole), axis
        if key not in self.known:
            self.known[key] = whole, take_rows(whole, axis, self.rows)
        return self.known[key][1]


def take_rows(whole: Tensor, axis: int, rows: Tensor) -> Tensor:
    """The samples at ``rows`` of a tensor, and of what plug-ins marked on it."""
    taken = whole.index_select(axis, rows)
    for name, mark in vars(whole).items():
        if name.startswith(MARK):
            setattr(taken, name, mark.of_samples(rows))
    return taken


def check_attributes(name: str, leaf: Any) -> None:
    """Refuse a tensor with attributes of its own, of which it is not known what belongs to which sample.

    Raises:
        Mixed: It has some, other than those of plug-ins.
    """
    for attribute in vars(leaf) if isinstance(leaf, Tensor) else ():
        if not attribute.startswith((MARK, "_dynamo")):
            raise Mixed(
                f"{name} has an attribute {attribute!r} of its own, which rows of it would not have: hand that on as "
                "an argument, so that AdaptiveExit sees whether it belongs to samples"
            )


def _axes_of(
    name: str, part: Snapshot, other: Snapshot, batch: int, rows: Tensor, unused: set[int], rounding: float
) -> Axes:
    if part.spec != other.spec:
        raise Mixed(
            f"{name} is put together otherwise for {len(rows)} samples than for {batch}. {_ALONE}: hand on the same "
            "structure of tensors for every batch, and no list with one entry a sample"
        )
    named = tree_leaves_with_path(part.value())
    return tuple(
        UNUSED if number in unused else _axis_of(f"{name}{at(path)}", leaf, few, batch, rows, rounding)
        for number, ((path, leaf), few) in enumerate(zip(named, other.leaves, strict=True))
    )


def _axis_of(name: str, leaf: Any, few: Any, batch: int, rows: Tensor, rounding: float) -> int | None:
    """The axis of the batch in one leaf of the whole batch, of which ``few`` is that of some rows."""
    if not (isinstance(leaf, Tensor) and isinstance(few, Tensor)):
        hidden = objects_with_hidden_tensors([leaf])
        same = ObjectSnapshot(leaf).like(few) if hidden else same_value(leaf, few)
        if same:
            return None
        raise Mixed(
            f"{name}, a {type(leaf).__name__}, changes with the batch, and no samples can be taken of it: hand on a "
            "tensor with one row a sample, or one for all"
        )
    if leaf.is_nested or leaf.layout is not torch.strided:
        raise Mixed(f"{name} is a nested or sparse tensor, of which no samples can be taken: hand on a dense one")
    changed = [axis for axis, (a, b) in enumerate(zip(leaf.shape, few.shape, strict=False)) if a != b]
    if leaf.ndim != few.ndim or len(changed) > 1:
        raise Mixed(_shapes(name, leaf, few, batch, rows))
    if not changed:
        check_same(name, leaf, few, rounding, None)
        return None
    axis = changed[0]
    if leaf.shape[axis] != batch or few.shape[axis] != len(rows):
        raise Mixed(_shapes(name, leaf, few, batch, rows))
    check_attributes(name, few)
    check_same(name, leaf.index_select(axis, rows), few, rounding, axis)
    return axis


def check_same(name: str, whole: Tensor, few: Tensor, rounding: float, axis: int | None) -> None:
    """Refuse rows that are others alone than they are in the batch, by more than ``rounding`` of their norm.

    Rows along ``axis`` are compared one by one; a row that is small beside the largest is held to a tenth of that one's
    norm, for what cancels keeps the rounding of what it was made of. What is not finite must be the same.

    Raises:
        Mixed: They are.
    """
    if whole.shape != few.shape or whole.dtype != few.dtype:
        how = f"as {whole.dtype} {tuple(whole.shape)} differs from {few.dtype} {tuple(few.shape)}"
        raise Mixed(f"{name} is another for some samples alone than for the same in a batch ({how}). {_WHY}")
    try:
        away = 0.0 if torch.equal(whole.detach(), few.detach()) else _distance(whole.detach(), few.detach(), axis)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError):  # meta and fake tensors have no values to read
        return
    if away > rounding:
        raise Mixed(
            f"{name} is another for some samples alone than for the same in a batch (by {away:.1e} of its size). {_WHY}"
        )


def _distance(a: Tensor, b: Tensor, axis: int | None) -> float:
    """The largest distance of two rows, in units of their norm; infinite where other entries are not finite."""
    if a.is_complex():
        return _distance(torch.view_as_real(a), torch.view_as_real(b), axis)
    if not a.is_floating_point():
        return math.inf
    wide = torch.float32 if a.device.type == "mps" else torch.float64
    a, b = a.to(wide), b.to(wide)
    finite = a.isfinite()
    if not torch.equal(a.masked_fill(finite, 0).nan_to_num(7), b.masked_fill(b.isfinite(), 0).nan_to_num(7)):
        return math.inf
    a, b = a.masked_fill(~finite, 0), b.masked_fill(~finite, 0)
    a, b = (each.movedim(axis, 0).flatten(1) if axis is not None else each.reshape(1, -1) for each in (a, b))
    norms = a.norm(dim=1)
    return float(((a - b).norm(dim=1) / norms.clamp_min(float(norms.max()) / 10).clamp_min(1e-30)).max())


def rounding_of(model: nn.Module, device: torch.device, compiled: bool = False) -> float:
    """How far, relative to their norm, the same rows of two batches may be apart by rounding alone.

    Kernels differ between sizes of batch, on GPUs by as much as TensorFloat-32 rounds; a compiler's differ more. The
    coarsest type that the model computes in counts, of its parameters and of autocast.
    """
    types = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    if has_autocast(device.type) and torch.is_autocast_enabled(device.type):
        types.add(torch.get_autocast_dtype(device.type))
    coarsest = max((torch.finfo(each).eps for each in types), default=torch.finfo(torch.float32).eps)
    is_plain = device.type == "cpu" and torch.get_float32_matmul_precision() == "highest" and not compiled
    if coarsest < 1e-12:
        return 1e-8
    if coarsest < 1e-6:
        return 1e-4 if is_plain else 1e-2
    return max((4 if is_plain else 16) * coarsest, 1e-4 if is_plain else 1e-2)


_ALONE = "AdaptiveExit lets samples leave the batch, so none may depend on the others"

_WHY = (
    f"{_ALONE}: put layers that are left in training mode into eval mode, switch off what is drawn at random, and what "
    "normalises or routes over the batch"
)


def _shapes(name: str, leaf: Tensor, few: Tensor, batch: int, rows: Tensor) -> str:
    return (
        f"{name} is {tuple(leaf.shape)} for {batch} samples and {tuple(few.shape)} for {len(rows)}, which is not one "
        f"row a sample. {_ALONE}: keep the batch as a dimension of its own between modules (no windows or beams "
        "folded into it, no padding to the longest of the batch)"
    )


def form_of(part: Snapshot, axes: Axes, batch: int) -> Any:
    """What tells one kind of value from another: its structure, and the shapes of its leaves without the batch."""
    if len(axes) != len(part.leaves):
        return None
    shapes = [_shape(leaf, axis, batch) for leaf, axis in zip(part.leaves, axes, strict=True)]
    return part.spec, tuple(shapes)


def _shape(leaf: Any, axis: int | None, batch: int) -> Any:
    if axis == UNUSED:
        return None
    if not isinstance(leaf, Tensor):
        return leaf if isinstance(leaf, (int, float, str, type(None))) else type(leaf)
    shape: list[Any] = [*leaf.shape, leaf.dtype]
    if axis is not None:
        if axis >= leaf.ndim or shape[axis] != batch:
            return None
        shape[axis] = -1
    return tuple(shape)
