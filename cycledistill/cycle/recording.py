"""The first pass of a forward, cycle 1: what blocks, and modules before them, were given and returned."""

from __future__ import annotations

from enum import Enum
from typing import Any

import torch
from torch import nn

from cycledistill.cycle import guards
from cycledistill.cycle.call import EarlyArguments, EarlyCall, FrozenStatistics, RecordedCall, autocast_of
from cycledistill.cycle.snapshot import Snapshot
from cycledistill.errors import StackError
from cycledistill.plugin.torch_private import saving_hooks, tree_leaves_with_path
from cycledistill.stack.links import (
    Links,
    check_arguments,
    check_fit,
    default_links,
    links_between,
    links_into,
    returned,
)


class Phase(Enum):
    """What a forward of a wrapped model is doing."""

    RECORD = "record"
    """The model's own forward, cycle 1: blocks and the modules before them are recorded."""
    CYCLE = "cycle"
    """The recorded blocks run again, on their own output, outside the model's forward."""
    REPLAY = "replay"
    """The model's own forward again: blocks and the modules before them answer instead of running."""


class StackReached(BaseException):
    """Ends the first pass at the last block when only a later cycle's output is wanted; never leaves this package."""


class Recording:
    """The first pass of one forward. It lives as long as that forward.

    With ``stop_at_last`` it ends in front of the last block, by `StackReached`; with ``compare`` this forward compares
    arguments, see `cycledistill.cycle.guards`. ``path`` and ``depth`` are those of the stack; ``method`` is the name
    of the method that was called, where it is not the forward of the wrapped model itself.
    """

    phase = Phase.RECORD

    def __init__(self, path: str, depth: int, inputs: Any, stop_at_last: bool, compare: bool, method: str = "") -> None:
        self.path = path
        self.depth = depth
        self.stop_at_last = stop_at_last
        self.stopped = False
        """Whether it was ended in front of the last block, whatever the model made of that."""
        self.method = method
        self.compare = compare
        self.inputs = Snapshot(inputs)
        self.calls: list[RecordedCall] = []
        self.outputs: list[Snapshot] = []
        self.early: list[EarlyCall] = []
        self.entered = 0
        """How many blocks were entered."""
        self.inside_early = False
        """Whether a module before the stack is running: what it calls is part of it."""
        self.autocast = autocast_of(self.inputs.leaves)
        self.grad_enabled = torch.is_grad_enabled()
        self.frozen: list[int] = []
        """The blocks that ran without gradients in a forward that has them."""
        self.roots: list[str] = []
        """The modules between model and stack that were called, each by its way to the stack."""
        self.saving_hooks = saving_hooks()

    def is_before_stack(self) -> bool:
        """Whether a module called now is one before the stack, and not inside another one."""
        return self.entered == 0 and not self.inside_early

    def record_early(self, key: int, before: EarlyArguments, output: Any) -> None:
        """Record that the module numbered ``key``, before the stack, returned ``output``.

        What it changed in place is recorded as it is now: it answers in replays, so that is not done again.
        """
        if changed := before.changed():
            for call in self.early:
                if any(leaf is tensor for leaf in call.output.leaves for tensor in changed):
                    call.output = Snapshot(call.output.value())
            self.inputs = Snapshot(self.inputs.value())
        self.early.append(EarlyCall(key, Snapshot(output), before.filled()))

    def record_call(self, block: nn.Module, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record that block ``index`` is about to run with these arguments."""
        if index == 0 and self.entered == self.depth:
            guards.check_second_run(self.path, self.roots)
        guards.check_order(self.path, index, self.entered, self.method)
        self.entered += 1
        if self.grad_enabled and not torch.is_grad_enabled():
            guards.check_checkpointing(self.path, index)
            self.frozen.append(index)
        elif self.frozen:
            guards.check_gradients(self.path, self.depth, self.frozen)
        call = RecordedCall(block, Snapshot((args, kwargs)), saving_hooks() is not self.saving_hooks)
        precision = autocast_of(call.leaves)
        call.autocast = precision if precision != self.autocast else None
        call.look_inside(args, kwargs)
        if index > 0:
            guards.check_state(self.path, self.depth, self.outputs)
            self._link(index, call)
        else:
            guards.check_before_stack(self.inputs, self.early)
        self.calls.append(call)
        if self.stop_at_last and index == self.depth - 1:
            self.stopped = True
            raise StackReached

    def record_output(self, output: Any) -> None:
        """Record what the block recorded last returned."""
        call = self.calls[-1]
        self.outputs.append(Snapshot(output))
        for position, container in call.containers.changed():
            guards.check_returned(self.path, len(self.calls) - 1, container, output)
            call.filled = position
        guards.check_objects(self.path, len(self.calls) - 1, call.objects)

    def finish(self) -> None:
        """Check that every block ran, link the stack's end to its beginning, and check that it fits.

        After a first pass that stopped at the last block the fit is checked when that block has run.
        """
        guards.check_all_ran(self.path, self.depth, self.entered, self.method)
        guards.check_gradients(self.path, self.depth, self.frozen)
        guards.check_before_stack(self.inputs, self.early)
        if self.depth > 1:
            self.calls[0].links = self._links_to_first()
        if self.is_complete():
            self._check_fit()

    def is_complete(self) -> bool:
        """Whether every block has run; a pass that stopped at the last one is not."""
        return len(self.outputs) == self.depth

    def run_last_block(self) -> None:
        """Run the last block of cycle 1, after a first pass that stopped in front of it."""
        last = self.calls[-1]
        args, kwargs = last.given.value()
        last.look_inside(args, kwargs)
        self.record_output(last.run(FrozenStatistics(()), args, kwargs))
        self._check_fit()

    def _link(self, index: int, call: RecordedCall) -> None:
        """Find which outputs of the blocks before are arguments of this one."""
        call.links = links_into(self.path, index, self.outputs[-1].leaves, call.leaves)
        linked = {taken for _, taken in call.links}
        if self.compare:
            done = zip(self.calls, self.outputs, strict=True)
            made = [leaf for each, output in done for leaf in returned(each.leaves, output.leaves)]
            check_arguments(self.path, index, made, call.leaves, call.links)
        for source, output in enumerate(self.outputs[:-1]):
            further = links_between(output.leaves, call.leaves)
            call.skips += [(source, made, taken) for made, taken in further if taken not in linked]
        guards.check_skips(self.path, index, call, self.calls)

    def _links_to_first(self) -> Links:
        """The links into block 1 as those into block 0, which may name or order its arguments otherwise."""
        first, second = self.calls[:2]
        if first.given.spec == second.given.spec:
            return second.links
        first_paths = [path for path, _ in tree_leaves_with_path(first.given.value())]
        paths = [path for path, _ in tree_leaves_with_path(second.given.value())]
        if not all(paths[taken] in first_paths for _, taken in second.links):
            raise StackError(
                f'blocks="{self.path}": block 0 takes its arguments in another form than block 1, so the stack\'s '
                "output cannot be told apart among them; call all blocks alike (the same positions and keywords)"
            )
        return [(made, first_paths.index(paths[taken])) for made, taken in second.links]

    def _check_fit(self) -> None:
        first, made = self.calls[0], self.outputs[-1].leaves
        if self.depth == 1:
            first.links = default_links(made, first.leaves, self.path)
        if max(i for i, _ in first.links) >= len(made) or max(j for _, j in first.links) >= len(first.leaves):
            raise StackError(
                f'blocks="{self.path}": the last block returns another structure than the others, or the first takes '
                "another; name a run of blocks with one signature"
            )
        drops_tokens = all(getattr(call.block, "drops_tokens", False) for call in self.calls)
        check_fit(self.path, first.leaves, made, first.links, drops_tokens)
