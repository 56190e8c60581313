"""The choice of the frames that a prune point keeps, once for all cycles of a forward."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cycledistill.errors import StackError
from cycledistill.hourglass.kept_frames import KeptFrames, Pass, given_frames
from cycledistill.hourglass.selection import full_precision, most_attended, motion, pool_frames, tpc, uniform
from cycledistill.hourglass.settings import Settings
from cycledistill.plugin.running import is_eager


def choose_frames(
    settings: Settings, given: tuple[Tensor, ...] | None, forward_pass: Pass, point: int, grid: Tensor
) -> KeptFrames:
    """The frames of ``grid`` (B, F', J, C), which enters a prune point, that it keeps; the pass remembers them.

    ``given`` are the frame numbers that the user set, one tensor a prune point.
    """
    if forward_pass.repeats() and point < len(forward_pass.kept):
        return forward_pass.kept[point]
    if point == 0:
        forward_pass.frames, forward_pass.kept, forward_pass.noise = grid.shape[1], [], None
    if point != len(forward_pass.kept):
        raise StackError(f"prune point {point} was entered where {len(forward_pass.kept)} was due; do not skip blocks")
    before = forward_pass.kept[-1].index if forward_pass.kept else None
    count = settings.count(point, forward_pass.frames)
    if count > grid.shape[1]:
        raise StackError(f"prune point {point} is to keep {count} frames, and only {grid.shape[1]} are left")
    if given is not None:
        kept = given_frames(given[point], before, grid, count, forward_pass.frames)
    elif count == grid.shape[1]:
        local = torch.arange(count, device=grid.device).expand(grid.shape[0], -1)
        kept = KeptFrames(local, local if before is None else before)
    else:
        drawn = forward_pass.noise is not None
        local = _select(settings, grid, count, before, forward_pass)
        kept = KeptFrames(local, local if before is None else before.gather(1, local))
        kept.redraw = _redraw(settings, count, None if drawn else forward_pass.noise)
    forward_pass.kept.append(kept)
    return kept


def _redraw(settings: Settings, count: int, noise: Tensor | None) -> Callable[[Tensor], object] | None:
    """What takes from torch's random numbers as much as the choice did, when the block runs again."""
    if callable(settings.select):
        return partial(_call_again, settings.select, count)
    if noise is not None and settings.noise == "uniform":
        return partial(_rand_again, noise.shape)
    return None


def _call_again(select: Callable[[Tensor, int], Tensor], count: int, grid: Tensor) -> None:
    with full_precision(grid):
        select(grid.detach(), count)


def _rand_again(shape: torch.Size, grid: Tensor) -> None:
    torch.rand(shape, device=grid.device)


def _select(settings: Settings, grid: Tensor, count: int, before: Tensor | None, forward_pass: Pass) -> Tensor:
    """The kept frames (B, count), ascending, among those of ``grid``, whose index in the clip is ``before``."""
    centre = settings.centre_of(forward_pass.frames)
    if centre is not None and not 0 <= centre < forward_pass.frames:
        raise StackError(f"centre={centre}: the clip has {forward_pass.frames} frames, numbered from 0")
    with full_precision(grid):
        pooled = pool_frames(grid.detach(), settings.pool)
        all_of_them = torch.arange(grid.shape[1], device=grid.device).expand(grid.shape[0], -1)
        index = all_of_them if before is None else before
        forced = None if centre is None else index == centre
        if settings.select == "tpc":
            noise = None if settings.noise is None else _noise(settings.noise, pooled, forward_pass).gather(1, index)
            neighbours = min(settings.neighbours, grid.shape[1])
            tie, exact = settings.tie, settings.exact
            return tpc(pooled, count, neighbours=neighbours, forced=forced, noise=noise, exact=exact, tie=tie)
        if settings.select == "uniform":
            return uniform(pooled, count, forced=forced)
        if settings.select == "motion":
            return motion(pooled, count, forced=forced)
        if settings.select == "attention":
            return most_attended(
                _take_attention(forward_pass, grid, settings.prefix), count, settings.prefix, forced=forced
            )
        assert callable(settings.select)
        return _check_choice(settings.select(grid.detach(), count), grid, count, forced)


def _check_choice(local: Any, grid: Tensor, count: int, forced: Tensor | None) -> Tensor:
    """What a user's selection returned, in the order of time."""
    expected = (grid.shape[0], count)
    if not isinstance(local, Tensor) or local.is_floating_point() or tuple(local.shape) != expected:
        given = f"a {local.dtype} tensor {tuple(local.shape)}" if isinstance(local, Tensor) else repr(local)
        raise StackError(f"select returned {given}; whole frame numbers of shape {expected} are expected")
    local = local.to(grid.device).long().sort(dim=1).values
    if is_eager() and not local.is_meta and local.numel():
        if int(local.min()) < 0 or int(local.max()) >= grid.shape[1] or bool((local[:, 1:] == local[:, :-1]).any()):
            raise StackError(f"select returned a frame twice, or one outside the {grid.shape[1]} it was given")
        if forced is not None and not bool(forced.gather(1, local).any(dim=1).all()):
            raise StackError("select did not keep the centre frame, which is always kept here: wrap with centre=False")
    return local


def _noise(noise: str | Tensor | torch.Generator, pooled: Tensor, forward_pass: Pass) -> Tensor:
    """Noise in [0, 1) for every frame of the clip (B, F), drawn once a forward."""
    if forward_pass.noise is None:
        shape = (pooled.shape[0], forward_pass.frames)
        if isinstance(noise, Tensor):
            if noise.shape not in {(shape[1],), (1, shape[1]), shape}:
                raise StackError(f"noise of shape {tuple(noise.shape)}: {shape} is expected, a number for each frame")
            forward_pass.noise = noise.to(pooled.device).expand(shape)
        elif isinstance(noise, torch.Generator):
            forward_pass.noise = torch.rand(shape, generator=noise, device=noise.device).to(pooled.device)
        else:
            forward_pass.noise = torch.rand(shape, device=pooled.device)
    return forward_pass.noise


def _take_attention(forward_pass: Pass, grid: Tensor, prefix: int) -> list[tuple[Any, Tensor]]:
    """What the attention over frames recorded since the last prune point, as (B, N, prefix + F, 3 * C)."""
    recorded, forward_pass.attention = forward_pass.attention, []
    batch, frames, joints, _ = grid.shape
    frames += prefix
    lines = []
    for attention, qkv in recorded:
        axis, shape = getattr(attention, "axis", None), tuple(qkv.shape[:-1])
        told_apart = axis is None and (joints == 1 or joints != frames)
        if axis == 1 and len(shape) == 3 and shape[:2] == (batch, frames):  # or of one hypothesis, (B, F, 1, C)
            lines.append((attention, qkv.transpose(1, 2)))
        elif told_apart and shape in ((batch, frames), (batch * joints, frames)):
            lines.append((attention, qkv.unflatten(0, (batch, -1))))
        elif told_apart and shape == (batch, joints, frames):
            lines.append((attention, qkv))
    if not lines:
        raise StackError(
            'select="attention": the block before the prune point calls no attention over frames that can be read; '
            "served are modules with num_heads and a qkv layer on (B, F, C), (B * J, F, C) or (B, J, F, C) "
            'tokens, or on (B, F, J, C) with axis=1. Use select="tpc", or a callable'
        )
    return lines
