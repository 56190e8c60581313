"""One forward of a wrapped model on its way from exit to exit, whose batch may shrink, and what it is called with."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cycledistill.adaptive import samples
from cycledistill.adaptive.outputs import at
from cycledistill.adaptive.samples import Axes, Layout
from cycledistill.cycle.call import ModelCall
from cycledistill.cycle.handle import Cyclic
from cycledistill.cycle.recording import Recording
from cycledistill.cycle.replay import Replay
from cycledistill.cycle.snapshot import Snapshot
from cycledistill.errors import StackError
from cycledistill.plugin.torch_private import tree_leaves, tree_leaves_with_path

_PLAIN = (bool, int, float, complex, str, bytes, type(None), enum.Enum, torch.dtype, torch.device, torch.layout)


class Walk:
    """One forward on its way from exit to exit."""

    def __init__(self, cyclic: Cyclic, call: ModelCall, batch: int) -> None:
        self._cyclic, self._call = cyclic, call
        self._replay: Replay | None = None
        self.ids = torch.arange(batch, device=first_tensor(call).device)

    @property
    def recording(self) -> Recording:
        """What was recorded, whole."""
        assert self._replay is not None
        return self._replay.recording

    def parts(self) -> list[Snapshot]:
        """What further cycles and tails need of it."""
        assert self._replay is not None
        return samples.parts_of(self._replay)

    def outputs(self, exits: tuple[int, ...]) -> Iterator[Any]:
        """The outputs at the exits, of the samples that still go on when each is asked for."""
        frozen = self._cyclic.frozen(self._call.model)
        if frozen.norms:
            raise StackError(
                f"a {type(frozen.norms[0]).__name__} in the model is in training mode, so samples are normalised by "
                "each other: call model.eval() on the whole model"
            )
        replay, output = self._cyclic.first_pass(self._call, frozen, stop_at_last=exits[0] > 1)
        assert replay is not None, "the forward of a model enters its stack, or was refused"
        self._replay, ran = replay, 1
        for each in exits:
            for _ in range(ran, each):
                replay.run_cycle(frozen)
            ran = each
            yield output if each == 1 else replay.run_tail(self._call, frozen)

    def go_on_with(self, rows: Tensor, inputs: Axes, layout: Layout) -> None:
        """Let the samples at ``rows``, of those that go on so far, go on alone."""
        assert self._replay is not None
        samples.take_samples(self._replay, layout, rows)
        self._call = samples.take_inputs(self._call, inputs, rows)


def batch_of(call: ModelCall) -> tuple[int, list[Axes]]:
    """How many samples a model is called with, and guesses of which of its arguments hold one row of each.

    The first tensor does. Others that are as long are thought to, in the first guess; in the second they are tables
    that all samples share; in the rest one of them is the other.

    Raises:
        ValueError: There is no sample.
        TypeError: No tensor, or something whose content cannot be told from another's: an array, an object.
    """
    for path, leaf in tree_leaves_with_path((call.args, call.kwargs)):
        if not isinstance(leaf, (Tensor, *_PLAIN)):
            raise TypeError(
                f"the model was called with a {type(leaf).__name__}{at(path)} (of positional and keyword arguments), "
                "of which AdaptiveExit cannot tell what belongs to which sample: give a tensor, or let the model hold "
                "what all share"
            )
    first = first_tensor(call)
    leaves = tree_leaves((call.args, call.kwargs))
    batch = int(first.shape[0])
    if batch == 0:
        raise ValueError("the batch is empty: at least one sample is expected")
    alike = tuple(0 if isinstance(x, Tensor) and x.ndim and x.shape[0] == batch else None for x in leaves)
    alone = tuple(0 if x is first else None for x in leaves)
    guesses = [alike, alone]
    for number, (here, there) in enumerate(zip(alike, alone, strict=True)):
        if here != there:
            guesses += [_with(alike, number, there), _with(alone, number, here)]
    return batch, list(dict.fromkeys(guesses))


def first_tensor(call: ModelCall) -> Tensor:
    """The one that says how many samples there are."""
    for leaf in tree_leaves((call.args, call.kwargs)):
        if isinstance(leaf, Tensor) and leaf.ndim:
            return leaf
    raise TypeError("the model was called without a tensor: AdaptiveExit takes the batch from the first one")


def _with(axes: Axes, number: int, axis: Any) -> Axes:
    return (*axes[:number], axis, *axes[number + 1 :])
