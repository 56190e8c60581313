"""The first call of a kind of input, tried out: what belongs to samples, and whether any depends on the others.

A few samples run alone, at every exit, and so does the whole batch: however sure samples are in the first call, later
calls may go on further. Then those few are taken out of the whole batch, and run one more cycle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cycledistill.adaptive import samples
from cycledistill.adaptive.outputs import at, check_outputs, check_plain, rows_of_output
from cycledistill.adaptive.samples import Axes, Layout, Mixed
from cycledistill.adaptive.walk import Walk, first_tensor
from cycledistill.cycle.call import ModelCall
from cycledistill.cycle.handle import Cyclic
from cycledistill.cycle.recording import Recording
from cycledistill.cycle.snapshot import Snapshot, same_value
from cycledistill.plugin.torch_private import tree_flatten, tree_leaves, tree_leaves_with_path


@dataclass(frozen=True)
class Trial:
    """A forward of a few samples, at every exit: what it recorded, its parts at the first exit, and its outputs."""

    inputs: Axes
    rows: Tensor
    recording: Recording
    parts: list[Snapshot]
    outputs: tuple[Any, ...]


@dataclass(frozen=True)
class Learned:
    """Where the batch is in inputs and parts; ``certain`` where no other guess explains this call as well."""

    inputs: Axes
    layout: Layout
    certain: bool
    trial: Trial

    def check(self, outputs: Any, reached: Tensor, rounding: float) -> None:
        """Refuse rows of a whole call that are others than in the trial, each at the exit it reached.

        Raises:
            Mixed: They are.
        """
        for number, row in enumerate(self.trial.rows.tolist()):
            one = torch.tensor([number], device=self.trial.rows.device)
            alone = rows_of_output(self.trial.outputs[int(reached[row])], one)
            _check_rows(rows_of_output(outputs, self.trial.rows[number : number + 1]), alone, rounding)


def learn(cyclic: Cyclic, call: ModelCall, batch: int, guesses: Sequence[Axes], exits: tuple[int, ...]) -> Learned:
    """Try a call out.

    Raises:
        Mixed: Samples depend on each other, or it cannot be told what belongs to them.
    """
    exits = (*exits, exits[-1] + 1)
    for leaf in tree_leaves((call.args, call.kwargs)):
        samples.check_attributes("a tensor that the model is called with", leaf)
    try:
        trials = _trials(cyclic, call, batch, guesses, exits)
        rounding = samples.rounding_of(call.model, first_tensor(call).device)
        walk = Walk(cyclic, call, batch)
        steps = walk.outputs(exits)
        outputs = [next(steps)]
        parts = walk.parts()
        outputs += [next(steps) for _ in exits[1:-1]]
        for output in outputs:
            check_outputs(output, batch)
        check_plain(outputs)
        agreed = _that_agree(trials, parts, outputs, batch, rounding)
        trial, layout = agreed[0]
        walk.go_on_with(trial.rows, trial.inputs, layout)
        _check_rows(next(steps), trial.outputs[-1], rounding)
    finally:
        cyclic.recorder.running = None
    return Learned(trial.inputs, layout, len(agreed) == 1, trial)


def _trials(
    cyclic: Cyclic, call: ModelCall, batch: int, guesses: Sequence[Axes], exits: tuple[int, ...]
) -> list[Trial]:
    """Forwards of a few samples, one for each guess of what in the inputs belongs to samples, where it runs."""
    # Never as many as the batch has, and never one, which models may squeeze away. Not in order, so that it shows
    # where rows are looked up in a table that is as long as the batch.
    few = [1, 0, 1] if batch == 2 else [batch - 1, 0]  # [0, 0] of one
    rows = torch.tensor(few, device=first_tensor(call).device)
    done: list[Trial] = []
    failed: Exception | None = None
    for axes in guesses:
        walk = Walk(cyclic, samples.take_inputs(call, axes, rows), len(rows))
        try:
            steps = walk.outputs(exits)
            first, parts = next(steps), walk.parts()
            outputs = (first, *steps)
        except Exception as error:  # a table that all samples share, cut to a few rows, fails anywhere inside the model
            failed = failed or error
            continue
        finally:
            cyclic.recorder.running = None
        done.append(Trial(axes, rows, walk.recording, parts, outputs))
    if not done and failed is not None:
        raise failed
    return done


def _that_agree(
    trials: list[Trial], parts: list[Snapshot], outputs: list[Any], batch: int, rounding: float
) -> list[tuple[Trial, Layout]]:
    """The trials whose samples are what they are in the batch, at every exit."""
    agreed: list[tuple[Trial, Layout]] = []
    refused: Mixed | None = None
    for trial in trials:
        try:
            names = samples.names_of(trial.recording)
            layout = samples.compare(parts, trial.parts, names, batch, trial.rows, rounding)
            for whole, few in zip(outputs, trial.outputs, strict=False):
                _check_rows(rows_of_output(whole, trial.rows), few, rounding)
        except Mixed as error:
            refused = refused or error
            continue
        agreed.append((trial, layout))
    if not agreed and refused is not None:
        raise refused
    return agreed


def _check_rows(whole: Any, few: Any, rounding: float) -> None:
    (leaves, spec), (others, form) = tree_flatten(whole), tree_flatten(few)
    if spec != form:
        raise Mixed(
            "the model's output is put together otherwise for some samples alone than in a batch, so samples cannot "
            "leave: return the same entries for every size of batch"
        )
    paths = [path for path, _ in tree_leaves_with_path(whole)]
    for path, a, b in zip(paths, leaves, others, strict=True):
        if isinstance(a, Tensor):
            samples.check_same(f"the model's output{at(path)}", a, b, rounding, 0)
        elif not same_value(a, b):
            raise Mixed(
                f"the model's output{at(path)} is {a!r:.80} for a batch and {b!r:.80} for some of its samples alone, "
                "and is no row a sample: return a tensor with one row each, or leave it out"
            )
