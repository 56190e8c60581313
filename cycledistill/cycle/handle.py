"""The handle ``model.cyclic``: the settings of a wrapped model, and its forward in training and at later exits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any

import torch
from torch import nn

from cycledistill.cycle.call import FrozenStatistics, ModelCall
from cycledistill.cycle.groups import ALL, Groups, check_groups, default_groups, fit_groups, resolve_groups
from cycledistill.cycle.guards import Comparisons, check_trainable
from cycledistill.cycle.modules import BlockState, CycledBlock, Recorder, adopt_copies
from cycledistill.cycle.recording import Recording, StackReached
from cycledistill.cycle.replay import Replay
from cycledistill.distill import Distill, plain_scheme
from cycledistill.errors import ChainError, StackError
from cycledistill.loss import checked_scalar
from cycledistill.output import CycleOutput
from cycledistill.plugin.handle import CYCLE_STATE, Handle
from cycledistill.plugin.torch_private import AnyBatchNorm, module_inside
from cycledistill.stack.choose import advice
from cycledistill.stack.find import Stack

_MOST = 10_000
"""Cycles; more are a slip of the hand, and would run for days."""

Scheme = str | Distill | Callable[[CycleOutput], torch.Tensor] | None


class Route(Enum):
    """How a call of a wrapped model runs."""

    PLAIN = "plain"
    """As the model that was wrapped."""
    TRAIN = "train"
    """All cycles, a tail for each: a `CycleOutput`."""
    EXIT = "exit"
    """Cycles up to a later exit, and one tail: what the model itself returns."""
    DRIVEN = "driven"
    """As another part of the library drives it, `Cyclic.driven_by`: at several exits, say."""


class Cyclic(Handle):
    """The handle ``model.cyclic`` of a wrapped model. It holds no parameters and no module."""

    kind = "cyclic"

    _stack: Stack
    _span: tuple[int, int] | None
    """Where in its container the stack begins and ends; ``None`` for one module that is the whole stack."""
    _siblings: int
    _whole_first: bool = False
    """Whether cycle 1 runs to its end at later exits too: a plug-in behind the stack decides by it for all cycles."""
    _driver: Callable[[ModelCall], Any] | None = None

    def __init__(
        self, cycles: int, distill: Scheme, tokens: Mapping[str, slice] | None, batch_norm: str, blocks: str
    ) -> None:
        if batch_norm not in ("freeze", "update"):
            raise StackError(f'batch_norm={batch_norm!r}: "freeze" or "update" is expected')
        self._cycles = _positive(cycles, "cycles")
        self._distill = _resolve(distill)
        self._task_weights()
        self._groups: Groups | None = None if tokens is None else check_groups(tokens)
        self._batch_norm = batch_norm
        self._freeze_batch_norm = batch_norm == "freeze"
        self._recorder = Recorder()
        self._asked = blocks
        self._comparisons = Comparisons()

    def bind(self, model: nn.Module, stack: Stack) -> None:
        """Settle what depends on the model, before anything in it is changed."""
        if self._cycles > 1:
            check_trainable(stack, model)
        groups = self._groups or default_groups(model, stack.shape)
        if groups is not None and groups != ALL and stack.shape is not None:
            fit_groups(groups, stack.shape)
        if groups is not None and isinstance(self._distill, Distill):
            self._distill.group_weights(groups)
        self._stack, self._groups = stack, groups
        self._span, self._siblings = stack.span(model)
        self._freeze_batch_norm &= any(isinstance(module, AnyBatchNorm) for module in model.modules())

    @property
    def stack(self) -> Stack:
        """The blocks that are cycled: ``.path`` and ``.depth``."""
        return self._stack

    @property
    def cycles(self) -> int:
        """How often the stack runs in a training forward; settable between steps."""
        return self._cycles

    @cycles.setter
    def cycles(self, cycles: int) -> None:
        self._cycles = _positive(cycles, "cycles")

    @property
    def exit(self) -> int:
        """The cycle whose output eval returns; settable, and may exceed ``cycles``."""
        return self._recorder.exit

    @exit.setter
    def exit(self, cycle: int) -> None:
        self._recorder.exit = _positive(cycle, "exit")

    @property
    def distill(self) -> Distill | Callable[[CycleOutput], torch.Tensor] | None:
        """The distillation scheme in force; settable, by preset name too. A schedule sets it from the training loop."""
        return self._distill

    @distill.setter
    def distill(self, distill: Scheme) -> None:
        self._distill = _resolve(distill)

    @property
    def groups(self) -> Mapping[str, slice] | None:
        """The token groups that are distilled apart, by name; ``None`` while they are not known."""
        return self._groups

    @property
    def freezes_batch_norm(self) -> bool:
        """Whether later cycles leave the running statistics of BatchNorm layers alone; false where there are none."""
        return self._freeze_batch_norm

    @property
    def recorder(self) -> Recorder:
        """What the swapped modules share: the forward that is running."""
        return self._recorder

    @property
    def found_its_blocks(self) -> bool:
        """Whether the blocks were not named when the model was wrapped, so that a plug-in may move the cycles."""
        return self._asked == "auto"

    @contextmanager
    def driven_by(self, driver: Callable[[ModelCall], Any]) -> Iterator[None]:
        """Let ``driver`` make the model's eval forwards inside the context, with what this handle offers."""
        before, self._driver = self._driver, driver
        try:
            yield
        finally:
            self._driver = before

    def drive(self, call: ModelCall) -> Any:
        """One eval forward, made by the driver in force."""
        assert self._driver is not None
        try:
            return self._driver(call)
        finally:
            self._recorder.running = None

    def run_first_cycle_whole(self, whole: bool) -> None:
        """Say whether cycle 1 runs to its end at later exits too, for a plug-in behind the stack."""
        self._whole_first = whole

    def owns(self, state: Any) -> bool:
        """Whether the state of a swapped module belongs to this handle."""
        return getattr(state, "recorder", None) is self._recorder

    def described(self, model: nn.Module) -> dict[str, Any]:
        """Arguments of ``wrap_cyclic``."""
        named = self._groups if self._groups not in (None, ALL) else None
        return {
            "blocks": self._stack.path,
            "depth": self._stack.depth,
            "cycles": self._cycles,
            "distill": plain_scheme(self._distill),
            "tokens": named and {name: [group.start, group.stop] for name, group in named.items()},
            "batch_norm": self._batch_norm,
        }

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and not isinstance(getattr(type(self), name, None), property):
            raise AttributeError(f"model.cyclic has no setting {name!r}: cycles, exit and distill can be set")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        return f"Cyclic({self._stack.path} x{self._stack.depth}, cycles={self._cycles}, exit={self.exit})"

    def _task_weights(self) -> tuple[float, ...]:
        return self._distill.weights(self._cycles) if isinstance(self._distill, Distill) else (1.0,) * self._cycles

    def _losses(
        self, model: nn.Module, out: CycleOutput, entry: torch.Tensor | tuple[torch.Tensor, ...]
    ) -> Mapping[str, torch.Tensor]:
        if self._distill is None:
            return {}
        if not isinstance(self._distill, Distill):
            return {"distill": checked_scalar(self._distill(out), "the distillation callable")}
        if self._groups is None:
            self._groups = resolve_groups(model, entry)
        if self._groups != ALL:
            fit_groups(self._groups, () if isinstance(out.tokens[0], tuple) else tuple(out.tokens[0].shape))
        return self._distill.losses(out.outputs, out.tokens, self._groups)

    def decide(self, training: bool, whole: bool) -> Route:
        """How a call of a root's method runs; ``whole`` where it is the forward of the wrapped model itself.

        In training only that one cycles; in eval every method does that enters the stack.
        """
        if training:
            return Route.TRAIN if whole else Route.PLAIN
        if whole and self._driver is not None:
            return Route.DRIVEN
        return Route.EXIT if self.exit > 1 else Route.PLAIN

    def check_unedited(self, root: nn.Module, below: str) -> None:
        """Refuse to run where the blocks below ``root``, in the container ``below``, are not those that were wrapped.

        Raises:
            StackError: A block was replaced, added or removed.
        """
        try:
            container = root.get_submodule(below)
        except AttributeError:
            container = nn.ModuleList()
        siblings = [container] if self._span is None else list(container.children())
        start, stop = self._span or (0, 1)
        # By the block's own class and dict: a module around it may hand on every attribute, and compute more.
        blocks = [module_inside(block) for block in siblings[start:stop]]
        states = [vars(block).get(CYCLE_STATE) if issubclass(type(block), CycledBlock) else None for block in blocks]
        same = len(siblings) == self._siblings and all(
            isinstance(state, BlockState) and state.index == index and state.recorder is self._recorder
            for index, state in enumerate(states)
        )
        if not same:
            raise StackError(
                f'blocks="{self._stack.path}": the blocks are not those that were wrapped; the model was edited since. '
                "Call unwrap_cyclic(model), edit, and wrap_cyclic(model) again"
            )

    def _record(self, call: ModelCall, stop_at_last: bool) -> Recording:
        """Begin a forward: what runs from now on is its first pass."""
        adopt_copies(call.model, self._recorder)
        compare = self._comparisons.due(call.model.training)
        given = (call.args, call.kwargs)
        recording = Recording(self._stack.path, self._stack.depth, given, stop_at_last, compare, call.part)
        self._recorder.running = recording
        return recording

    def frozen(self, model: nn.Module) -> FrozenStatistics:
        """The statistics that belong to cycle 1 alone; none where every cycle moves them."""
        return FrozenStatistics(model.modules() if self._freeze_batch_norm else ())

    def _replay(self, recording: Recording) -> Replay:
        """End the first pass: what runs from now on are further cycles, and replays."""
        recording.finish()
        replay = self._recorder.running = Replay(recording)
        return replay

    def run_all_cycles(self, call: ModelCall) -> CycleOutput:
        """One training forward: the model's own pass, then every further cycle with its replayed tail."""
        model = call.model
        if torch.is_grad_enabled() and self._cycles > 1:
            check_trainable(self._stack, model)
        weights = self._task_weights()
        frozen = self.frozen(model)
        recording = self._record(call, stop_at_last=False)
        try:
            outputs = [call()]
            replay = self._replay(recording)
            self._recorder.tell_of_untrained(recording)
            tokens = [replay.state()]
            for _ in range(1, self._cycles):
                replay.run_cycle(frozen)
                tokens.append(replay.state())
                outputs.append(replay.run_tail(call, frozen))
            replay.check_state()
        except ChainError as refusal:
            self._recorder.running = None
            raise StackError(f"{refusal}.{advice(model, self._stack.path)}") from None
        finally:
            self._recorder.running = None
        out = CycleOutput(tuple(outputs), tuple(tokens), {}, weights)
        out.losses = self._losses(model, out, replay.entry())
        return out

    def run_to_exit(self, call: ModelCall) -> Any:
        """One eval forward at a later exit: the extra cycles, and the tail once."""
        frozen = self.frozen(call.model)
        try:
            replay, output = self.first_pass(call, frozen, stop_at_last=True)
            if replay is None:
                return output  # this method does not go through the stack (a head on its own, say)
            for _ in range(1, self.exit):
                replay.run_cycle(frozen)
            return replay.run_tail(call, frozen)
        finally:
            self._recorder.running = None

    def first_pass(self, call: ModelCall, frozen: FrozenStatistics, stop_at_last: bool) -> tuple[Replay | None, Any]:
        """Cycle 1 of an eval forward: what follows from it (``None`` where no block ran), and what the call returned.

        With ``stop_at_last`` the first pass may end in front of the last block, so that its tail does not run; it then
        returned ``None``. The caller ends the forward: it sets the recorder's ``running`` to ``None`` in any case.
        """
        # Compilers and exporters cannot follow the early stop; the unused first tail is dead code, which they remove.
        # A BatchNorm that is left in training is moved by the first tail too.
        stop_at_last = stop_at_last and not (torch.compiler.is_compiling() or self._whole_first or frozen.norms)
        recording = self._record(call, stop_at_last)
        stopped, translated, output = False, False, None
        # What the stop went through is let go with it (in torch 2.11 that is what ends a block's checkpointing), so
        # nothing more runs while it is handled.
        try:
            output = call()
        except StackReached:
            stopped = True
        except Exception:
            if not recording.stopped:
                raise
            translated = True  # the model made an error of its own of the early stop
        if translated:
            return self.first_pass(call, frozen, stop_at_last=False)
        if not stopped and recording.entered == 0 and not call.whole:
            return None, output
        replay = self._replay(recording)
        if stopped:
            recording.run_last_block()
        elif not recording.is_complete():  # the model caught the early stop, and went on without the last block
            return self.first_pass(call, frozen, stop_at_last=False)
        return replay, output


def _resolve(distill: Scheme) -> Distill | Callable[[CycleOutput], torch.Tensor] | None:
    if isinstance(distill, str):
        return Distill.preset(distill)
    if distill is None or isinstance(distill, Distill) or callable(distill):
        return distill
    raise ValueError(f"distill={distill!r}: a preset name, a Distill, a callable (CycleOutput) -> Tensor, or None")


def _positive(value: int, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST:
        raise StackError(f"{name}={value!r:.80}: a whole number of at least 1, and at most {_MOST}, is expected")
    return value
