"""One forward whose batch shrinks: cycle 1 and its tail for all samples, each further one for those that go on.

`AdaptiveForward` drives the model's own forward (`Cyclic.driven_by`): all of it happens inside one call of the model,
its hooks included. The first call of a kind of input is preceded by a trial (`trial.py`), which tells which tensors
belong to samples (`samples.py`), and what the rows of the outputs must be.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cycledistill.adaptive import samples
from cycledistill.adaptive.compiled import CompiledSteps, CompiledWalk, Template
from cycledistill.adaptive.outputs import check_outputs, put_together, rows_of_output
from cycledistill.adaptive.samples import Axes, Layout
from cycledistill.adaptive.trial import Learned, learn
from cycledistill.adaptive.walk import Walk, batch_of, first_tensor
from cycledistill.cycle.call import ModelCall
from cycledistill.cycle.handle import Cyclic
from cycledistill.cycle.snapshot import Snapshot

_logger = logging.getLogger(__name__)

Stop = Callable[[int, Any, Any], Tensor]
"""From the place of an exit, its output and that of the exit before: which samples (B,) are sure."""

KINDS = 16
"""Of input, that are remembered; the oldest is forgotten, and would be tried out again."""


class AdaptiveForward:
    """Runs a wrapped model's forward at ``exits``, and lets samples go where they are sure."""

    def __init__(self, cyclic: Cyclic, exits: tuple[int, ...], compiling: dict[str, Any] | None) -> None:
        self.cyclic, self.exits, self.compiling = cyclic, exits, compiling
        self._layouts: dict[Any, tuple[Axes, Layout]] = {}
        self._templates: dict[Any, Template] = {}
        self._steps: CompiledSteps | None = None
        self._told = False

    def until_sure(self, call: ModelCall, stop: Stop) -> tuple[Any, Tensor]:
        """The outputs, each sample's at its exit, and the places of these among the exits, (B,) int64."""
        batch, guesses = batch_of(call)
        kind = samples.form_of(Snapshot((call.args, call.kwargs)), guesses[0], batch)
        known, learned = self._layouts.get(kind), None
        if self.compiling is not None and kind not in self._templates:
            known = None
        if known is None and (batch > 1 or self.compiling is not None):
            learned = learn(self.cyclic, call, batch, guesses, self.exits)
            known = learned.inputs, learned.layout
        walk = self._walk(call, batch, kind, learned)
        ids, before, found = walk.ids, None, []
        reached = torch.zeros_like(ids)
        for place, output in enumerate(walk.outputs(self.exits)):
            check_outputs(output, len(ids))
            if place == 0 and known is not None and learned is None and not known[1].fits(walk.parts(), batch):
                del self._layouts[kind]  # the model was set otherwise since
                self._templates.pop(kind, None)
                return self.until_sure(call, stop)
            reached[ids] = place
            is_last = place == len(self.exits) - 1
            sure = torch.ones_like(ids, dtype=torch.bool) if is_last else stop(place, output, before)
            go_on = (~sure).nonzero().flatten()
            if len(go_on) == 0:
                found.append((ids, output))
                break
            if len(go_on) < len(ids):
                assert known is not None
                leave = sure.nonzero().flatten()
                found.append((ids[leave], rows_of_output(output, leave)))
                output, ids = rows_of_output(output, go_on), ids[go_on]
                walk.go_on_with(go_on, *known)
            before = output
        outputs = put_together(found)
        if learned is not None:
            learned.check(outputs, reached, samples.rounding_of(call.model, ids.device, self.compiling is not None))
            if learned.certain:  # and not before: what is refused must be refused again
                self._tell_of_many(kind)
                _remember(self._layouts, kind, known)
        return outputs, reached

    def _tell_of_many(self, kind: Any) -> None:
        if len(self._layouts) == KINDS and kind not in self._layouts and not self._told:
            self._told = True
            _logger.warning(
                "more than %d kinds of input (shapes without the batch, and the values of numbers and texts): each new "
                "one is tried out, which costs a forward at all exits; give numbers that change as tensors",
                KINDS,
            )

    def _walk(self, call: ModelCall, batch: int, kind: Any, learned: Learned | None) -> Walk | CompiledWalk:
        if self.compiling is None:
            return Walk(self.cyclic, call, batch)
        if self._steps is None:
            self._steps = CompiledSteps(self.cyclic, self.exits, call, self.compiling)
        if learned is not None and kind not in self._templates:  # another one would be compiled for again
            trial = learned.trial
            _remember(self._templates, kind, Template.of(trial.recording, trial.parts[-1]))
        ids = torch.arange(batch, device=first_tensor(call).device)
        return CompiledWalk(self._steps, call, ids, self._templates[kind])

    def at_all(self, call: ModelCall) -> list[Any]:
        """The outputs of all samples at every exit."""
        batch, _ = batch_of(call)
        outputs = list(Walk(self.cyclic, call, batch).outputs(self.exits))
        for output in outputs:
            check_outputs(output, batch)
        return outputs


def _remember(store: dict[Any, Any], kind: Any, value: Any) -> None:
    store[kind] = value
    if len(store) > KINDS:
        del store[next(iter(store))]
