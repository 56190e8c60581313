"""One forward whose batch shrinks: cycle 1 and its tail for all samples, each further one for those that go on.

`AdaptiveForward` drives the model's own forward (`Cyclic.driven_by`): all of it happens inside one call of the model,
its hooks included. The first call of a kind of input is preceded by a trial of a few samples, which answers at every
exit: it tells which tensors belong to samples (`samples.py`), and what the rows of the outputs must be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cycledistill.adaptive import samples
from cycledistill.adaptive.compiled import CompiledSteps, CompiledWalk, Template
from cycledistill.adaptive.outputs import check_outputs, put_together, rows_of_output
from cycledistill.adaptive.samples import Axes, Layout, Mixed
from cycledistill.cycle.handle import Cyclic, ModelCall
from cycledistill.cycle.recording import Recording
from cycledistill.cycle.replay import Replay
from cycledistill.cycle.snapshot import Snapshot
from cycledistill.errors import StackError
from cycledistill.plugin.torch_private import tree_leaves

Stop = Callable[[int, Any, Any], Tensor]
"""From the place of an exit, its output and that of the exit before: which samples (B,) are sure."""


@dataclass(frozen=True)
class Trial:
    """A forward of a few samples, at every exit: what it recorded, its parts at the first exit, and its outputs."""

    inputs: Axes
    rows: Tensor
    recording: Recording
    parts: list[Snapshot]
    outputs: tuple[Any, ...]


class AdaptiveForward:
    """Runs a wrapped model's forward at ``exits``, and lets samples go where they are sure."""

    def __init__(self, cyclic: Cyclic, exits: tuple[int, ...], compiling: dict[str, Any] | None) -> None:
        self.cyclic, self.exits, self.compiling = cyclic, exits, compiling
        self._layouts: dict[Any, tuple[Axes, Layout]] = {}
        self._templates: dict[Any, Template] = {}
        self._steps: CompiledSteps | None = None

    def until_sure(self, call: ModelCall, stop: Stop) -> tuple[Any, Tensor]:
        """The outputs, each sample's at its exit, and the places of these among the exits, (B,) int64."""
        batch, guesses = batch_of(call)
        kind = samples.form_of(Snapshot((call.args, call.kwargs)), guesses[0], batch)
        known = self._layouts.get(kind)
        needed = known is None and (batch > 1 or self.compiling is not None)
        trials = self._trials(call, batch, guesses) if needed else []
        walk = self._walk(call, batch, kind, trials)
        ids, before, found, rounding = walk.ids, None, [], 0.0
        reached = torch.zeros_like(ids)
        for place, output in enumerate(walk.outputs(self.exits)):
            check_outputs(output, len(ids))
            if trials and known is None:
                rounding = samples.rounding_of(call.model, ids.device)
                known = _settle(trials, walk.parts(), output, batch, rounding)
            elif known is not None and place == 0 and not known[1].fits(walk.parts(), batch):
                del self._layouts[kind]  # the model was set otherwise since
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
        if trials and known is not None:
            _check_outputs_of(trials, known[0], outputs, reached, rounding)
            self._layouts[kind] = known  # not before: what is refused must be refused again
        return outputs, reached

    def _walk(self, call: ModelCall, batch: int, kind: Any, trials: list[Trial]) -> _Walk | CompiledWalk:
        if self.compiling is None:
            return _Walk(self.cyclic, call, batch)
        if self._steps is None:
            self._steps = CompiledSteps(self.cyclic, self.exits, call, self.compiling)
        if trials:
            self._templates[kind] = Template.of(trials[0].recording, trials[0].parts[-1])
        ids = torch.arange(batch, device=_first_tensor(call).device)
        return CompiledWalk(self._steps, call, ids, self._templates[kind])

    def at_all(self, call: ModelCall) -> list[Any]:
        """The outputs of all samples at every exit."""
        batch, _ = batch_of(call)
        outputs = list(_Walk(self.cyclic, call, batch).outputs(self.exits))
        for output in outputs:
            check_outputs(output, batch)
        return outputs

    def _trials(self, call: ModelCall, batch: int, guesses: Sequence[Axes]) -> list[Trial]:
        """Forwards of a few samples, one for each guess of what in the inputs belongs to samples, where it runs."""
        # Never as many as the batch has, and never one, which models may squeeze away. Not in order, so that it shows
        # where rows are looked up in a table that is as long as the batch.
        few = [1, 0, 1] if batch == 2 else [batch - 1, 0]  # [0, 0] of one
        rows = torch.tensor(few, device=_first_tensor(call).device)
        done: list[Trial] = []
        for leaf in tree_leaves((call.args, call.kwargs)):
            samples.check_attributes("a tensor that the model is called with", leaf)
        for axes in guesses:
            walk = _Walk(self.cyclic, samples.take_inputs(call, axes, rows), len(rows))
            try:
                steps = walk.outputs(self.exits)
                first, parts = next(steps), walk.parts()
                outputs = (first, *steps)
            except Exception:  # a table that all samples share, cut to a few rows, fails anywhere inside the model
                if axes is guesses[-1] and not done:
                    raise
                continue
            finally:
                self.cyclic.recorder.running = None
            done.append(Trial(axes, rows, walk.recording, parts, outputs))
        return done


class _Walk:
    """One forward on its way from exit to exit."""

    def __init__(self, cyclic: Cyclic, call: ModelCall, batch: int) -> None:
        self._cyclic, self._call = cyclic, call
        self._replay: Replay | None = None
        self.ids = torch.arange(batch, device=_first_tensor(call).device)

    @property
    def recording(self) -> Recording:
        assert self._replay is not None
        return self._replay.recording

    def parts(self) -> list[Snapshot]:
        """What was recorded."""
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
    that all samples share.
    """
    first = _first_tensor(call)
    leaves = tree_leaves((call.args, call.kwargs))
    batch = int(first.shape[0])
    if batch == 0:
        raise ValueError("the batch is empty: at least one sample is expected")
    alike = tuple(0 if isinstance(x, Tensor) and x.ndim and x.shape[0] == batch else None for x in leaves)
    alone = tuple(0 if x is first else None for x in leaves)
    return batch, [alike] if alike == alone else [alike, alone]


def _first_tensor(call: ModelCall) -> Tensor:
    for leaf in tree_leaves((call.args, call.kwargs)):
        if isinstance(leaf, Tensor) and leaf.ndim:
            return leaf
    raise TypeError("the model was called without a tensor: AdaptiveExit takes the batch from the first one")


def _settle(
    trials: list[Trial], parts: list[Snapshot], output: Any, batch: int, rounding: float
) -> tuple[Axes, Layout]:
    """The first trial whose samples are what they are in the batch says where the batch is."""
    for trial in trials:
        try:
            names = samples.names_of(trial.recording)
            layout = samples.compare(parts, trial.parts, names, batch, trial.rows, rounding)
            _check_rows(rows_of_output(output, trial.rows), trial.outputs[0], rounding)
        except Mixed:
            if trial is trials[-1]:
                raise
            continue
        return trial.inputs, layout
    raise AssertionError("a trial that failed was raised")


def _check_outputs_of(trials: list[Trial], inputs: Axes, outputs: Any, reached: Tensor, rounding: float) -> None:
    """Refuse rows, after all exits, that are others in the batch than in the trial: blocks mix samples."""
    (trial,) = [each for each in trials if each.inputs == inputs]
    for number, row in enumerate(trial.rows.tolist()):
        one = torch.tensor([number], device=trial.rows.device)
        alone = rows_of_output(trial.outputs[int(reached[row])], one)
        _check_rows(rows_of_output(outputs, trial.rows[number : number + 1]), alone, rounding)


def _check_rows(whole: Any, few: Any, rounding: float) -> None:
    for a, b in zip(tree_leaves(whole), tree_leaves(few), strict=True):
        if isinstance(a, Tensor):
            samples.check_same("the model's output", a, b, rounding)
