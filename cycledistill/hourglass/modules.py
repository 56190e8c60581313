"""The plug-ins of the hourglass: levels that drop frames before they run, a module after which all frames return.

Frames are dropped and recovered in ``__call__``, outside all hooks and outside the recorder of cycles: neither belongs
to a level's own function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cycledistill.cycle.modules import CycledBlock
from cycledistill.cycle.recording import BYPASS, LOOP
from cycledistill.errors import StackError
from cycledistill.hourglass.choose import KeptFrames, Pass, choose_frames, take_frames
from cycledistill.hourglass.handle import Hourglass
from cycledistill.hourglass.layout import Tokens
from cycledistill.hourglass.recovery import FrameRecovery, RankPositions, linear, nearest
from cycledistill.plugin.state import CYCLE_STATE, HOURGLASS_STATE, ON_THE_FULL_GRID
from cycledistill.plugin.swap import Swapped
from cycledistill.plugin.torch_private import is_replica, recomputing, tree_leaves

_ENTRY, _EXIT = "_cycledistill_frames", "_cycledistill_all_frames"


class Layout(Protocol):
    """How the state of the levels is laid out."""

    def to(self, state: Any, frames: int | None) -> Tensor:
        """The state, one tensor or a tuple, as (B, F, J, C); ``frames`` is F where it is known."""

    def back(self, grid: Tensor, like: Any) -> Any:
        """(B, F, J, C) as a state of the form of ``like``."""


@dataclass
class HourglassState:
    """The place of one swapped module."""

    handle: Hourglass
    layout: Layout
    path: str
    point: int | None = None
    """Number of the prune point in front of it."""
    positions: RankPositions | None = None
    ends: bool = False
    """Whether it is the last level: frames may return from here on."""
    returns: bool = False
    """Whether all frames return in its output."""
    recovery: FrameRecovery | None = None

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The arguments for the frames that are kept."""
        forward_pass = self.handle._pass
        if forward_pass is None and not recomputing():
            return args, kwargs  # called by itself
        tokens = Tokens.within((args, kwargs), same_type=True)
        if tokens is None:
            raise StackError(f"{self.path} was called without a tensor: an hourglass drops frames of its tokens")
        if forward_pass is None:
            kept: KeptFrames | None = getattr(tokens.first, _ENTRY, None)
            if kept is None:
                return args, kwargs
        else:
            _refuse_reentrant(self.path, tokens.first, forward_pass)
        grid = self._grid(tokens.state, self._frames_before(forward_pass))
        if forward_pass is None:
            assert kept is not None
            if kept.redraw is not None:
                kept.redraw(grid)
        else:
            self._check_others(tokens, grid)
            kept = choose_frames(self.handle._settings, self.handle._given, forward_pass, self.point or 0, grid)
            if torch.is_grad_enabled() and not torch.compiler.is_compiling():
                setattr(tokens.first, _ENTRY, kept)
        count = kept.ranks.shape[1]
        if count == grid.shape[1] and self.positions is None:
            return args, kwargs
        grid = grid if count == grid.shape[1] else take_frames(grid, kept.ranks)
        if self.positions is not None:
            grid = self.positions(grid, self.handle._settings.lengths)
        return tokens.replaced(self.layout.back(grid, tokens.state), self.path)

    def check_state(self, given: Any, output: Any) -> None:
        """Refuse a level that takes tensors like its tokens and does not return them: they are no tokens."""
        taken, returned = Tokens.within(given, same_type=True), Tokens.within(output, same_type=False)
        if taken is not None and returned is not None and len(taken.places) > max(1, len(returned.places)):
            raise StackError(
                f"{self.path} takes {len(taken.places)} tensors of one shape, {tuple(taken.first.shape)}, and returns "
                f"{len(returned.places)} of one shape: the others (the memory of a decoder?) are no tokens of its, and "
                "frames would be dropped from them too. An hourglass serves levels that return all that they take"
            )

    def leave(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """The output with all frames again."""
        forward_pass = self.handle._pass
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if forward_pass is None:
            noted = getattr(inputs[0], _EXIT, None) if inputs and recomputing() else None
            if noted is None:
                return output
            kept, frames = noted
        elif not forward_pass.due:
            return output
        else:
            forward_pass.due = False
            kept, frames = forward_pass.kept[-1], forward_pass.frames
            if inputs and torch.is_grad_enabled() and not torch.compiler.is_compiling():
                setattr(inputs[0], _EXIT, (kept, frames))
        tokens = Tokens.within(output, same_type=False)
        if tokens is None:
            raise StackError(f"{self.path} returned no tensor, so no frames can be recovered after it")
        grid = self._grid(tokens.state, kept.numbers.shape[1])
        if grid.shape[1] != kept.numbers.shape[1]:
            raise StackError(
                f"{self.path} returned {tuple(tokens.first.shape)}, where {kept.numbers.shape[1]} frames were kept: "
                "frames are recovered on axis 1. Name another module with recover_after, or pass layout"
            )
        return tokens.replaced(self.layout.back(self._recover(grid, kept, frames), tokens.state), self.path)

    def _recover(self, grid: Tensor, kept: KeptFrames, frames: int) -> Tensor:
        settings = self.handle._settings
        if self.recovery is None:
            between = linear if settings.recover == "linear" else nearest
            return grid if grid.shape[1] == frames else between(grid, kept.numbers, frames)
        self._check_width(grid, self.recovery.query)
        return self.recovery(grid, frames, settings.lengths)

    def _frames_before(self, forward_pass: Pass | None) -> int | None:
        if forward_pass is not None and self.point:
            return forward_pass.kept[self.point - 1].ranks.shape[1]
        return self.handle._settings.frames

    def _grid(self, given: Any, frames: int | None) -> Tensor:
        grid = self.layout.to(given, frames)
        if not isinstance(grid, Tensor) or grid.ndim != 4:
            shape = tuple(grid.shape) if isinstance(grid, Tensor) else type(grid).__name__
            raise StackError(
                f"the state at {self.path} is {shape}: frames are axis 1 of (B, F, J, C), or of (B, F, C). Pass "
                "layout=(to, back), two functions between your layout and (B, F, J, C)"
            )
        if self.positions is not None:
            self._check_width(grid, self.positions.pos)
        return grid

    def _check_width(self, grid: Tensor, table: Tensor) -> None:
        if grid.shape[-1] != table.shape[-1]:
            raise StackError(
                f"the tokens at {self.path} have {grid.shape[-1]} channels, and the hourglass was made for "
                f"{table.shape[-1]}: wrap with width={grid.shape[-1]}"
            )

    def _check_others(self, tokens: Tokens, grid: Tensor) -> None:
        frames = grid.shape[1]
        for place, leaf in enumerate(tokens.leaves):
            if place not in tokens.places and isinstance(leaf, Tensor) and frames > 1 and frames in leaf.shape:
                raise StackError(
                    f"{self.path} takes a {tuple(leaf.shape)} tensor beside its tokens, whose {frames} frames are to "
                    "be dropped: an hourglass serves levels that take nothing for each frame (a mask, positions) but "
                    "the tokens. Add it to the tokens before the levels"
                )


class HourglassLevel(Swapped):
    """A level, or the module after which frames return."""

    swap_order = 5

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Drop frames, run, recover frames, as the place asks."""
        state: HourglassState | None = self.__dict__.get(HOURGLASS_STATE)
        if state is None:
            return super().__call__(*args, **kwargs)  # type: ignore[misc]
        if is_replica(self):
            raise StackError(
                "torch.nn.DataParallel runs replicas in threads that share one record of the forward: use "
                "torch.nn.parallel.DistributedDataParallel, or unwrap_hourglass(model)"
            )
        # Later cycles start from the kept frames, and answer for levels with tokens that are already pruned.
        phase = _phase(self)  # type: ignore[arg-type]
        if state.point is not None and phase not in (LOOP, BYPASS):
            args, kwargs = state.enter(self, args, kwargs)  # type: ignore[arg-type]
        output = super().__call__(*args, **kwargs)  # type: ignore[misc]
        forward_pass = state.handle._pass
        if state.point is not None and forward_pass is not None:
            state.check_state((args, kwargs), output)
        if state.ends and phase != LOOP and forward_pass is not None:
            forward_pass.due = len(forward_pass.kept) == len(state.handle.layers)
        return state.leave(args, kwargs, output) if state.returns and phase != LOOP else output

    def __prepare_scriptable__(self) -> nn.Module:
        raise StackError(
            "torch.jit.script cannot compile an hourglass, and would drop no frames: use torch.jit.trace, torch.export "
            "or ONNX"
        )


class QkvRecorder(Swapped):
    """The projection to queries, keys and values of an attention in front of a prune point: notes its output."""

    swap_order = 5

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Project, and note the result for ``select="attention"``."""
        output = super().__call__(*args, **kwargs)  # type: ignore[misc]
        handle, attention = self.__dict__[HOURGLASS_STATE].noted
        forward_pass = handle._pass
        if forward_pass is not None and handle._given is None and not forward_pass.repeats():
            forward_pass.attention.append((attention, output.detach()))
        return output


@dataclass
class QkvState:
    """The place of a ``qkv``: the handle, and the attention that it belongs to."""

    handle: Hourglass
    attention: nn.Module

    @property
    def noted(self) -> tuple[Hourglass, nn.Module]:
        """Both."""
        return self.handle, self.attention


class HourglassRoot(Swapped):
    """The wrapped model, and the modules between it and its levels: where a forward begins and ends."""

    swap_order = 5

    @classmethod
    def namespace(cls, below: type) -> dict[str, Any]:
        """Wrap every method by which users enter the levels; names, signatures and docs stay the base's."""
        names = [name for name in dir(below) if name.startswith("forward") or name in ON_THE_FULL_GRID]
        methods = {name: getattr(below, name) for name in names if inspect.isfunction(getattr(below, name))}
        return {
            name: _on_all_frames(name, method) if name in ON_THE_FULL_GRID else _entry(name, method)
            for name, method in methods.items()
        }


def _on_all_frames(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def enter(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise StackError(
            f"{name} makes maps of all tokens after single levels, and this model drops some on the way: "
            "unwrap_hourglass(model) first"
        )

    return enter


def _entry(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def enter(self: Any, *args: Any, **kwargs: Any) -> Any:
        state: HourglassState | None = self.__dict__.get(HOURGLASS_STATE)
        if state is None or state.handle._pass is not None:
            return method(self, *args, **kwargs)
        handle = state.handle
        recorder = getattr(self.__dict__.get(CYCLE_STATE), "recorder", None)
        forward_pass = handle._pass = Pass(recorder, torch.is_grad_enabled())
        try:
            output = method(self, *args, **kwargs)
        finally:
            handle._pass = None
        if name == "forward" and "hourglass" in self.__dict__:
            _check_done(handle, forward_pass)
        if forward_pass.kept and not recomputing():
            handle._show(forward_pass)
        return output

    return enter


def _check_done(handle: Hourglass, forward_pass: Pass) -> None:
    if len(forward_pass.kept) != len(handle.layers):
        raise StackError(
            f'blocks="{handle.stack.path}": the forward passed {len(forward_pass.kept)} of {len(handle.layers)} '
            "prune points; the model was edited after wrapping, or skips levels. Call unwrap_hourglass(model) and wrap "
            "it again"
        )
    if forward_pass.due:
        raise StackError(
            f"{handle.recover_after} did not run after the last level, so no frames were recovered: name with "
            "recover_after a module that does"
        )


def _phase(module: nn.Module) -> str | None:
    """The phase of the cycles, if this module is one of the blocks that are cycled."""
    state = module.__dict__.get(CYCLE_STATE)
    recording = state.recorder.recording if state is not None and isinstance(module, CycledBlock) else None
    return recording.phase if recording is not None else None


def _refuse_reentrant(path: str, tokens: Tensor, forward_pass: Pass) -> None:
    if forward_pass.grad_enabled and tokens.requires_grad and not torch.is_grad_enabled():
        raise StackError(
            f"{path} runs without gradients inside a forward that has them, as in reentrant activation checkpointing, "
            "whose second run would see other frames. Use non-reentrant checkpointing: "
            "torch.utils.checkpoint.checkpoint(..., use_reentrant=False)"
        )
