"""One forward of a wrapped model on its way from exit to exit, whose batch may shrink between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cycledistill.adaptive import samples
from cycledistill.adaptive.arguments import first_tensor
from cycledistill.adaptive.samples import Axes, Layout
from cycledistill.cycle.handle import Cyclic, ModelCall
from cycledistill.cycle.recording import Recording
from cycledistill.cycle.replay import Replay
from cycledistill.cycle.snapshot import Snapshot
from cycledistill.errors import StackError


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
