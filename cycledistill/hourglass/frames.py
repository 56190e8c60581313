"""Frames dropped in front of a block and recovered behind a module: in a forward, and again when a backward recomputes.

A checkpointed module runs a second time in the backward, when its forward is over and the handle may know of another
clip. So the forward leaves what was kept on the first tensor that the module was given, which the second run is given
as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cycledistill.errors import StackError
from cycledistill.hourglass.choose import choose_frames
from cycledistill.hourglass.handle import Hourglass
from cycledistill.hourglass.kept_frames import KeptFrames, Pass, take_frames
from cycledistill.hourglass.layout import FramesFirst, Front, Layout, Tokens, split_front, with_front
from cycledistill.hourglass.recovery import FrameRecovery, RankPositions, recover_linear, recover_nearest
from cycledistill.plugin.torch_private import recomputing, tree_leaves

_DROPPED, _RECOVERED = "_cycledistill_frames", "_cycledistill_all_frames"

Given = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class HourglassState:
    """What a swapped module knows of the hourglass."""

    handle: Hourglass
    layout: Layout
    path: str
    point: int | None = None
    """Number of the prune point in front of it."""
    positions: RankPositions | None = None
    """Of this prune point, where positions are learned."""
    ends: bool = False
    """Whether it is the last block: frames may return from here on."""
    returns: bool = False
    """Whether all frames return in its output."""
    recovery: FrameRecovery | None = None
    """Which brings them back, where that is learned."""
    attention: tuple[str, ...] = ()
    """Paths inside it of the attention over frames that ``select="attention"`` reads."""
    acting: tuple[HourglassState, ...] = ()
    """On the model itself: the states of all modules that drop or recover frames, outer ones first."""


def drop_frames(state: HourglassState, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Given:
    """A block's arguments with the kept frames alone."""
    forward_pass = state.handle.forward_pass
    if forward_pass is not None:
        return _drop(state, forward_pass, (args, kwargs))
    if recomputing():
        return _drop_again(state, (args, kwargs))
    return args, kwargs  # called by itself


def recover_frames(state: HourglassState, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """A module's output with all frames again."""
    forward_pass = state.handle.forward_pass
    inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if forward_pass is not None:
        return _recover(state, forward_pass, inputs, output)
    if recomputing():
        return _recover_again(state, inputs, output)
    return output  # called by itself


def check_returned(state: HourglassState, given: Any, output: Any) -> None:
    """Refuse a block that takes tensors like its tokens and does not return them: they are no tokens."""
    taken, returned = Tokens.within(given, same_type=True), Tokens.within(output, same_type=False)
    if taken is not None and returned is not None and len(taken.numbers) > max(1, len(returned.numbers)):
        raise StackError(
            f"{state.path} takes {len(taken.numbers)} tensors of one shape, {tuple(taken.first.shape)}, and returns "
            f"{len(returned.numbers)} of one shape: the others (the memory of a decoder?) are no tokens of its, and "
            "frames would be dropped from them too. An hourglass serves blocks that return all that they take"
        )


def _drop(state: HourglassState, forward_pass: Pass, given: Given) -> Given:
    """In a forward: choose the frames, or take the choice of the first cycle."""
    tokens = _tokens_given(state, given)
    _refuse_reentrant(state.path, tokens.first, forward_pass)
    point = state.point or 0
    axis = state.handle.axis
    entering = forward_pass.kept[point - 1].local.shape[1] if point else axis.frames
    if not point and isinstance(state.layout, FramesFirst) and tokens.first.ndim > 1:
        axis.check(state.path, tokens.first.shape[1], flat=True)
    front, frames = split_front(tokens.value, axis.prefix)
    grid = _grid(state, frames, entering)
    if not point:
        axis.check(state.path, axis.prefix + grid.shape[1], flat=False)
    _check_others(state.path, tokens, grid.shape[1])
    kept = choose_frames(state.handle.settings, state.handle.given, forward_pass, point, grid)
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        setattr(tokens.first, _DROPPED, kept)
    return _keep(state, given, tokens, front, grid, kept)


def _drop_again(state: HourglassState, given: Given) -> Given:
    """In a recomputation: the frames of the forward that is repeated."""
    tokens = _tokens_given(state, given)
    kept: KeptFrames | None = getattr(tokens.first, _DROPPED, None)
    if kept is None:
        return given
    front, frames = split_front(tokens.value, state.handle.axis.prefix)
    grid = _grid(state, frames, state.handle.axis.frames)
    if kept.redraw is not None:
        kept.redraw(grid)
    return _keep(state, given, tokens, front, grid, kept)


def _keep(
    state: HourglassState, given: Given, tokens: Tokens, front: Front | None, grid: Tensor, kept: KeptFrames
) -> Given:
    count = kept.local.shape[1]
    if count == grid.shape[1] and state.positions is None:
        return given
    grid = grid if count == grid.shape[1] else take_frames(grid, kept.local)
    if state.positions is not None:
        grid = state.positions(grid, state.handle.settings.lengths)
    frames = state.layout.back(grid, tokens.value)
    replaced: Given = tokens.replaced(with_front(front, frames), state.path)
    return replaced


def _recover(state: HourglassState, forward_pass: Pass, inputs: list[Tensor], output: Any) -> Any:
    """In a forward: once, in the first output behind the last block."""
    if not forward_pass.due:
        return output
    forward_pass.due = False
    kept, frames = forward_pass.kept[-1], forward_pass.frames
    if inputs and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        setattr(inputs[0], _RECOVERED, (kept, frames))
    return _all_frames(state, output, kept, frames)


def _recover_again(state: HourglassState, inputs: list[Tensor], output: Any) -> Any:
    """In a recomputation: where the forward that is repeated did so."""
    recovered = getattr(inputs[0], _RECOVERED, None) if inputs else None
    return output if recovered is None else _all_frames(state, output, *recovered)


def _all_frames(state: HourglassState, output: Any, kept: KeptFrames, frames: int) -> Any:
    tokens = Tokens.within(output, same_type=False)
    if tokens is None:
        raise StackError(f"{state.path} returned no tensor, so no frames can be recovered after it")
    count = kept.index.shape[1]
    front, grid = _find_kept(state, tokens.value, count)
    if grid.shape[1] != count:
        raise StackError(
            f"{state.path} returned {tuple(tokens.first.shape)}, where {count} frames were kept: "
            "frames are recovered on axis 1. Name another module with recover_after, or pass layout"
        )
    settings = state.handle.settings
    if state.recovery is not None:
        _check_width(state.path, grid, state.recovery.query)
        grid = state.recovery(grid, frames, settings.lengths, kept.index)
    elif count != frames:
        recover = recover_linear if settings.recover == "linear" else recover_nearest
        grid = recover(grid, kept.index, frames)
    return tokens.replaced(with_front(front, state.layout.back(grid, tokens.value)), state.path)


def _find_kept(state: HourglassState, tokens: Any, count: int) -> tuple[Front | None, Tensor]:
    """The tokens in front, as far as they are still there, and the grid of the ``count`` kept frames."""
    prefix = state.handle.axis.prefix
    if prefix:
        front, frames = split_front(tokens, prefix)
        try:
            grid = _grid(state, frames, count)
        except RuntimeError:  # of a layout, which was made for the kept frames and nothing else
            pass
        else:
            if grid.shape[1] == count:
                return front, grid
    return None, _grid(state, tokens, count)


def _tokens_given(state: HourglassState, given: Given) -> Tokens:
    tokens = Tokens.within(given, same_type=True)
    if tokens is None:
        raise StackError(f"{state.path} was called without a tensor: an hourglass drops frames of its tokens")
    return tokens


def _grid(state: HourglassState, tokens: Any, frames: int | None) -> Tensor:
    """The tokens as (B, F, J, C)."""
    grid = state.layout.to(tokens, frames)
    if not isinstance(grid, Tensor) or grid.ndim != 4:
        shape = tuple(grid.shape) if isinstance(grid, Tensor) else type(grid).__name__
        raise StackError(
            f"the tokens at {state.path} are {shape}: frames are axis 1 of (B, F, J, C), or of (B, F, C). Pass "
            "layout=(to, back), two functions between your layout and (B, F, J, C)"
        )
    if state.positions is not None:
        _check_width(state.path, grid, state.positions.pos)
    return grid


def _check_width(path: str, grid: Tensor, table: Tensor) -> None:
    if grid.shape[-1] != table.shape[-1]:
        raise StackError(
            f"the tokens at {path} have {grid.shape[-1]} channels, and the hourglass was made for "
            f"{table.shape[-1]}: wrap with width={grid.shape[-1]}"
        )


def _check_others(path: str, tokens: Tokens, frames: int) -> None:
    lengths = {frames, tokens.first.shape[1]} if tokens.first.ndim > 1 else {frames}
    for number, leaf in enumerate(tokens.leaves):
        beside = number not in tokens.numbers and isinstance(leaf, Tensor)
        if beside and frames > 1 and lengths & set(leaf.shape):
            raise StackError(
                f"{path} takes a {tuple(leaf.shape)} tensor beside its tokens, whose {frames} frames are to "
                "be dropped: an hourglass serves blocks that take nothing for each frame (a mask, positions) but "
                "the tokens. Add it to the tokens before the blocks"
            )


def _refuse_reentrant(path: str, tokens: Tensor, forward_pass: Pass) -> None:
    if forward_pass.grad_enabled and tokens.requires_grad and not torch.is_grad_enabled():
        raise StackError(
            f"{path} runs without gradients inside a forward that has them, as in reentrant activation checkpointing, "
            "whose second run would see other frames. Use non-reentrant checkpointing: "
            "torch.utils.checkpoint.checkpoint(..., use_reentrant=False)"
        )
