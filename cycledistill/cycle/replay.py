"""What follows the first pass: the recorded blocks run again, and the model's own forward around their tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from cycledistill.cycle import guards
from cycledistill.cycle.call import FrozenStatistics, fill
from cycledistill.cycle.recording import Phase, Recording
from cycledistill.cycle.snapshot import Snapshot


class Replay:
    """What follows the first pass of one forward. It lives as long as that forward."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.phase = Phase.CYCLE
        self.outputs = recording.outputs
        """What each block returned in the cycle that ran last."""
        self.blocks_answered = 0
        self.early_answered = 0
        self.roots: list[str] = []
        """The modules between model and stack that were called in this replay, as `Recording.roots`."""

    def run_cycle(self, frozen: FrozenStatistics) -> None:
        """Run every block once more, the first on the output of the last."""
        self.check_state()
        calls = self.recording.calls
        guards.check_unchanged_arguments(self.recording.path, calls)
        self.phase = Phase.CYCLE
        output = self.outputs[-1]
        outputs: list[Snapshot] = []
        for call in calls:
            args, kwargs = call.arguments(output.leaves, outputs)
            output = Snapshot(call.run(frozen, args, kwargs))
            outputs.append(output)
        self.outputs = outputs

    def run_tail(self, forward: Callable[[], Any], frozen: FrozenStatistics) -> Any:
        """The model's own forward around the tokens of the current cycle."""
        self.phase, self.blocks_answered, self.early_answered, self.roots = Phase.REPLAY, 0, 0, []
        with frozen.hold():
            output = forward()
        guards.check_all_answered(self.recording.path, self.recording.depth, self.blocks_answered)
        return output

    def is_before_stack(self) -> bool:
        """Whether a module called now is one before the stack, and is to answer."""
        return self.phase is Phase.REPLAY and self.blocks_answered == 0

    def answer_early(self, key: int, given: tuple[Any, ...]) -> Any:
        """What a module before the stack returned, in the order of the first pass."""
        early = self.recording.early
        known = early[self.early_answered] if self.early_answered < len(early) else None
        call = guards.check_same_way(known, key)
        self.early_answered += 1
        return call.answer(given)

    def answer_block(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What block ``index`` returned in the current cycle."""
        recording, call = self.recording, self.recording.calls[index]
        if index == 0 and self.blocks_answered == recording.depth:  # where the first pass was stopped before that
            guards.check_second_run(recording.path, self.roots)
        guards.check_order(recording.path, index, self.blocks_answered)
        self.blocks_answered += 1
        if recording.compare:
            guards.check_same_arguments(recording.path, index, call, args, kwargs)
        answer = self.outputs[index].value()
        if call.filled is None:
            return answer
        container = (*args, *kwargs.values())[call.filled]  # the model may go on with this one, not with the answer
        fill(container, answer)
        return container

    def check_state(self) -> None:
        """Refuse a forward that changed the tokens the next cycle, or the token loss, starts from."""
        guards.check_state(self.recording.path, self.recording.depth, self.outputs)

    def state(self) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """The stack's output in the current cycle: the tensors that the next cycle starts from."""
        return _picked(self.outputs[-1].leaves, {made for made, _ in self.recording.calls[0].links})

    def entry(self) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """The state that cycle 1 started from; it holds more tokens than the stack's output where some are dropped."""
        first = self.recording.calls[0]
        return _picked(first.leaves, {taken for _, taken in first.links})


def _picked(leaves: list[Any], numbers: set[int]) -> torch.Tensor | tuple[torch.Tensor, ...]:
    picked = tuple(leaves[number] for number in sorted(numbers))
    return picked[0] if len(picked) == 1 else picked
