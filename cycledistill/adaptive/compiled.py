"""The steps of an adaptive forward as compiled graphs: one up to the first exit, one for each number of further cycles.

Between the graphs stand the choice of rows and nothing else. What one graph recorded goes to the next as plain values
(`samples.parts_of`); how they belong together (which block, which argument is the state) is read off a trial that ran
without a compiler.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from cycledistill.adaptive import samples
from cycledistill.adaptive.outputs import rows_of_output
from cycledistill.adaptive.samples import UNUSED, Axes, Layout
from cycledistill.cycle.call import Containers, EarlyCall, FrozenStatistics, ModelCall, RecordedCall
from cycledistill.cycle.handle import Cyclic
from cycledistill.cycle.recording import Recording
from cycledistill.cycle.replay import Replay
from cycledistill.cycle.snapshot import Snapshot
from cycledistill.plugin.torch_private import mark_dynamic, tree_flatten, tree_unflatten


@dataclass(frozen=True, eq=False)
class Template:
    """How the values of a recording belong together, without the values.

    Attributes:
        path: Of the stack.
        depth: Of the stack.
        early: Of each module before the stack: its key, and the places of the containers that it filled.
        calls: Of each block, without arguments.
        unused: For each part, the leaves that nothing needs any more.
        marks: Of the tokens: the leaf, the name of an attribute that a plug-in left on it, and that mark.
    """

    path: str
    depth: int
    early: tuple[tuple[int, tuple[int, ...]], ...]
    calls: tuple[RecordedCall, ...]
    unused: tuple[frozenset[int], ...]
    marks: tuple[tuple[int, str, Any], ...]

    @classmethod
    def of(cls, recording: Recording, tokens: Snapshot) -> Template:
        """That of a recording that was made without a compiler, and of what the stack then returned."""
        marks = [
            (number, name, mark)
            for number, leaf in enumerate(tokens.leaves)
            if isinstance(leaf, Tensor)
            for name, mark in vars(leaf).items()
            if name.startswith(samples.MARK)
        ]
        return cls(
            recording.path,
            recording.depth,
            tuple((early.key, tuple(place for place, _ in early.filled)) for early in recording.early),
            tuple(replace(call, given=Snapshot(()), containers=Containers(()), objects=[]) for call in recording.calls),
            tuple(frozenset(unused) for _, unused in samples.names_of(recording)),
            tuple(marks),
        )

    def rebuilt(self, inputs: Any, parts: list[Snapshot], marks: list[Tensor]) -> Recording:
        """A recording of these parts."""
        recording = Recording(self.path, self.depth, inputs, False, False)
        rest = iter(parts)
        for key, places in self.early:
            recording.early.append(EarlyCall(key, next(rest), [(place, next(rest)) for place in places]))
        for call in self.calls:
            again = RecordedCall(call.block, next(rest), call.checkpointed, autocast=call.autocast, filled=call.filled)
            again.links, again.skips = call.links, call.skips
            recording.calls.append(again)
        tokens = next(rest)
        for (number, name, mark), index in zip(self.marks, marks, strict=True):
            setattr(tokens.leaves[number], name, mark.of_index(index))
        recording.outputs = [tokens] * self.depth
        return recording


class CompiledSteps:
    """The two compiled functions of one model, made when they are first needed."""

    def __init__(self, cyclic: Cyclic, exits: tuple[int, ...], call: ModelCall, options: dict[str, Any]) -> None:
        self.cyclic, self.exits, self.method, self.model = cyclic, exits, call.method, call.model
        self.first = torch.compile(self._first, fullgraph=True, **options)
        self.later = torch.compile(self._later, fullgraph=True, **options)

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("an AdaptiveExit with compile=True is not copied or pickled: make one of the copied model")

    def _first(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], template: Template
    ) -> tuple[Any, list[Any], list[Tensor]]:
        """Up to the first exit: the output, the values of all parts, and the marks of the tokens."""
        call, frozen = ModelCall(self.method, self.model, args, kwargs, True), FrozenStatistics(())
        try:
            replay, output = self.cyclic.first_pass(call, frozen, stop_at_last=False)
            assert replay is not None
            for _ in range(1, self.exits[0]):
                replay.run_cycle(frozen)
            if self.exits[0] > 1:
                output = replay.run_tail(call, frozen)
            parts = samples.parts_of(replay)
            values = [_value(part, unused) for part, unused in zip(parts, template.unused, strict=True)]
            leaves = replay.outputs[-1].leaves
            return output, values, [getattr(leaves[number], name).index for number, name, _ in template.marks]
        finally:
            self.cyclic.recorder.running = None

    def _later(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        template: Template,
        values: list[Any],
        marks: list[Tensor],
        cycles: int,
    ) -> tuple[Any, Any]:
        """Some further cycles and a tail: the output and the tokens."""
        call, frozen = ModelCall(self.method, self.model, args, kwargs, True), FrozenStatistics(())
        recording = template.rebuilt((call.args, call.kwargs), [Snapshot(value) for value in values], marks)
        try:
            replay = Replay(recording)
            self.cyclic.recorder.running = replay
            for _ in range(cycles):
                replay.run_cycle(frozen)
            output = replay.run_tail(call, frozen)
            return output, replay.outputs[-1].value()
        finally:
            self.cyclic.recorder.running = None


class CompiledWalk:
    """One forward on its way from exit to exit, in compiled steps; like the eager one in `forward.py`."""

    def __init__(self, steps: CompiledSteps, call: ModelCall, ids: Tensor, template: Template) -> None:
        self._steps, self._call, self._template = steps, call, template
        self._content: list[Any] = []
        self._marks: list[Tensor] = []
        self._inputs: Axes = ()
        self._layout: Layout | None = None
        self._alone = False
        self.ids = ids

    def parts(self) -> list[Snapshot]:
        """What was recorded."""
        return [Snapshot(value) for value in self._content]

    def outputs(self, exits: tuple[int, ...]) -> Iterator[Any]:
        """The outputs at the exits, of the samples that still go on when each is asked for."""
        output, self._content, self._marks = self._steps.first(self._call.args, self._call.kwargs, self._template)
        yield output
        for before, each in pairwise(exits):
            output, tokens = self._steps.later(
                self._call.args, self._call.kwargs, self._template, self._content, self._marks, each - before
            )
            self._content = [*self._content[:-1], tokens]
            yield rows_of_output(output, self.ids.new_zeros(1)) if self._alone else output

    def go_on_with(self, rows: Tensor, inputs: Axes, layout: Layout) -> None:
        """Let the samples at ``rows``, of those that go on so far, go on alone."""
        self._alone = len(rows) == 1
        if self._alone:
            rows = rows.expand(2)  # compilers make another graph for one row; this one runs twice in place of that
        taken = samples.take_parts(self.parts(), layout, rows)
        self._call = samples.take_inputs(self._call, inputs, rows)
        self._content = [part.value() for part in taken]
        self._marks = [mark.index_select(0, rows) for mark in self._marks]
        for part, axes in zip(taken, layout.axes, strict=True):
            _mark_batch(part.leaves, axes)
        _mark_batch(tree_flatten((self._call.args, self._call.kwargs))[0], inputs)
        for mark in self._marks:
            mark_dynamic(mark, 0)


def _mark_batch(leaves: list[Any], axes: Axes) -> None:
    for leaf, axis in zip(leaves, axes, strict=True):
        if axis is not None and axis != UNUSED:
            mark_dynamic(leaf, axis)


def _value(part: Snapshot, unused: frozenset[int]) -> Any:
    leaves = [None if number in unused else leaf for number, leaf in enumerate(part.leaves)]
    return tree_unflatten(leaves, part.spec)
