"""Processes agree after which step they stop: a signal reaches each of them at a moment of its own."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from cycledistill.recipes.run.guard.signals import StopRequest, is_listening, noted


class StopVote:
    """Whether any process of a run was asked to stop, the same answer on all at the same step.

    A process alone looks at what it heard. Several add up what each had heard when a step began: one number, sent while
    the step runs, is there when the gradients are, so that no step waits for it. All stop after the step in which it
    was sent, one or two after the signal.

    Example:
        >>> vote = StopVote(accelerator)
        >>> vote.cast()
        >>> ...  # a step
        >>> vote.count()  # raised or not, on every process alike
    """

    def __init__(self, accelerator: Any) -> None:
        self.device = accelerator.device
        self.several = accelerator.num_processes > 1 and is_listening()
        self.sent: torch.Tensor | None = None
        self.work: Any = None

    def cast(self) -> None:
        """Send what was heard so far; every process must."""
        if self.several:
            self.sent = torch.full((), noted() or 0, dtype=torch.int32, device=self.device)
            self.work = dist.all_reduce(self.sent, dist.ReduceOp.MAX, async_op=True)

    def count(self) -> int | None:
        """The signal by which the run is to stop, if any process had heard one at the last :meth:`cast`."""
        if not self.several:
            return noted()
        assert self.sent is not None, "cast first"
        self.work.wait()
        return int(self.sent.item()) or None

    def settle(self) -> None:
        """Wait for all processes, and stop on all where one was asked to.

        Raises:
            StopRequest: One was.
        """
        self.cast()
        number = self.count()
        if number is not None:
            raise StopRequest(number)
