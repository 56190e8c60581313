"""The handle ``model.hourglass``: its settings, the frames kept, and what is known during one forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from cycledistill.chain import StackError
from cycledistill.hourglass_index import KeptFrames, check_choice, check_index, given_frames
from cycledistill.hourglass_settings import Settings, check_noise
from cycledistill.kept import flat_rows
from cycledistill.record import Recorder
from cycledistill.replay import NOTE
from cycledistill.selection import full_precision, most_attended, motion, pool_frames, tpc, uniform
from cycledistill.stack import Stack

Index = Tensor | tuple[Tensor, ...]


@dataclass
class Pass:
    """What is known during one forward; it lives as long as that forward."""

    recorder: Recorder | None
    grad_enabled: bool
    frames: int = 0
    kept: list[KeptFrames] = field(default_factory=list)
    noise: Tensor | None = None
    attention: list[tuple[Any, Tensor]] = field(default_factory=list)
    due: bool = False
    """Whether the stack has ended and its frames are still to be recovered."""

    def repeats(self) -> bool:
        """Whether cycles are running past the first, which chose the frames for all of them."""
        run = self.recorder.run if self.recorder is not None else None
        return run is not None and run.phase != NOTE


class Hourglass:
    """The handle ``model.hourglass`` of a wrapped model. It holds no parameters and no module."""

    def __init__(self, stack: Stack, settings: Settings, end: int, recover_after: str | None, added: bool) -> None:
        self._stack, self._settings, self._end = stack, settings, end
        self._recover_after, self._added = recover_after, added
        self._given: tuple[Tensor, ...] | None = None
        self._last: tuple[Tensor, ...] | None = None
        self._pass: Pass | None = None

    @property
    def stack(self) -> Stack:
        """The levels: ``.path`` and ``.depth``."""
        return self._stack

    @property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the levels before which frames are dropped, ascending."""
        return self._settings.layers

    @property
    def keep(self) -> tuple[int | float, ...]:
        """What each prune point keeps, a number of frames or a share of the clip's."""
        return self._settings.keep

    @property
    def recover(self) -> bool | str:
        """How all frames come back: ``True`` (learned attention), ``"linear"``, ``"nearest"``, or not (``False``)."""
        return self._settings.recover

    @property
    def settings(self) -> Settings:
        """Everything that the model was wrapped with."""
        return self._settings

    @property
    def recover_after(self) -> str | None:
        """Path of the module whose output all frames come back in; ``None`` where they do not."""
        return self._recover_after

    @property
    def noise(self) -> str | Tensor | torch.Generator | None:
        """What decides between equal densities beside ``exact``; settable, see :func:`wrap_hourglass`."""
        return self._settings.noise

    @noise.setter
    def noise(self, noise: str | Tensor | torch.Generator | None) -> None:
        self._settings = replace(self._settings, noise=check_noise(noise))

    @property
    def index(self) -> Index | None:
        """Frames kept in the last forward: (B, K) numbers in the clip, ascending; one tensor a prune point if several.

        Set it, and the forwards that follow keep just those frames, (B, K) or (1, K), until it is set to ``None``: the
        flipped pass of test-time augmentation then keeps those of the first.
        """
        index = self._given or self._last
        return index[0] if index is not None and len(index) == 1 else index

    @index.setter
    def index(self, index: Index | Sequence[Tensor] | None) -> None:
        if index is None:
            self._given = self._last = None
            return
        given = (index,) if isinstance(index, Tensor) else tuple(index) if isinstance(index, (tuple, list)) else ()
        if len(given) != len(self.layers):
            raise StackError(
                f"index={index!r}: {len(self.layers)} tensor(s) of frame numbers are expected, one a prune point"
            )
        before = None
        for each in given:
            before = check_index(each, before)
        self._given = tuple(each.long() for each in given)

    def take(self, target: Tensor) -> Tensor:
        """The part of a (B, F, ...) target that belongs to the frames kept in the last forward, (B, K, ...).

        Raises:
            StackError: No forward has run, or the target is not of that clip's length.
        """
        index = self.index
        if index is None:
            raise StackError("no frames were chosen yet: run the model, then take the target's frames")
        index = index[-1] if isinstance(index, tuple) else index
        if target.ndim < 2 or len(index) not in (1, len(target)) or int(index.max()) >= target.shape[1]:
            raise StackError(
                f"a target of shape {tuple(target.shape)}: (B, F, ...) is expected, of the clips whose frames were "
                f"kept, {tuple(index.shape)}"
            )
        index = index.expand(len(target), -1).reshape(len(target), -1, *([1] * (target.ndim - 2)))
        return target.gather(1, index.expand(-1, -1, *target.shape[2:]))

    def sequence(self, output: Tensor) -> Tensor:
        """``output`` itself where the model returns all frames.

        Raises:
            StackError: It returns the kept frames alone, so a whole sequence cannot be had from it in one pass.
        """
        if self._settings.recover is False:
            raise StackError(
                "this model returns only the frames it keeps (recover=False), and was asked for the whole sequence: "
                'wrap with recover=True, "linear" or "nearest", or run it on a window around every frame and read '
                "the centre with model.hourglass.centre_frame(output)"
            )
        return output

    def centre_frame(self, output: Tensor) -> Tensor:
        """The centre frame (B, ...) of an output (B, K, ...) of kept frames, or (B, F, ...) of all of them.

        Raises:
            StackError: No forward has run, or no frame is always kept (``centre=False``).
        """
        if self.index is None or not isinstance(output, Tensor):
            raise StackError("no frames were chosen yet: run the model, and pass what it returned")
        centre = self._settings.centre_of(self._clip)
        if centre is None and self._settings.recover is False:
            raise StackError("no frame is always kept: wrap with centre=True, or with the number of a frame")
        if self._settings.recover is not False:
            return output[:, (self._clip - 1) // 2 if centre is None else centre]
        index = self.index[-1] if isinstance(self.index, tuple) else self.index
        rank = index.eq(centre or 0).int().argmax(dim=1).expand(len(output))
        return output[torch.arange(len(output), device=output.device), rank.to(output.device)]

    def __repr__(self) -> str:
        points = ", ".join(f"{keep} before {layer}" for layer, keep in zip(self.layers, self.keep, strict=True))
        return f"Hourglass({self._stack.path} x{self._stack.depth}: {points}; recover={self.recover!r})"

    _clip: int = 0

    def _choose(self, point: int, grid: Tensor) -> KeptFrames:
        """The frames of ``grid`` (B, F', J, C) that a prune point keeps, once for all cycles of a forward."""
        state = self._pass
        assert state is not None
        if state.repeats() and point < len(state.kept):
            return state.kept[point]
        if point == 0:
            state.frames, state.kept, state.noise = grid.shape[1], [], None
        if point != len(state.kept):
            raise StackError(f"prune point {point} was entered where {len(state.kept)} was due; do not skip levels")
        before = state.kept[-1].numbers if state.kept else None
        count = self._settings.count(point, state.frames)
        if count > grid.shape[1]:
            raise StackError(f"prune point {point} is to keep {count} frames, and only {grid.shape[1]} are left")
        if self._given is not None:
            kept = given_frames(self._given[point], before, grid, count, state.frames)
        elif count == grid.shape[1]:
            ranks = torch.arange(count, device=grid.device).expand(grid.shape[0], -1)
            kept = KeptFrames(ranks, ranks if before is None else before)
        else:
            ranks = self._select(grid, count, before, state)
            kept = KeptFrames(ranks, ranks if before is None else before.gather(1, ranks))
        state.kept.append(kept)
        return kept

    def _select(self, grid: Tensor, count: int, before: Tensor | None, state: Pass) -> Tensor:
        settings = self._settings
        centre = settings.centre_of(state.frames)
        if centre is not None and not 0 <= centre < state.frames:
            raise StackError(f"centre={centre}: the clip has {state.frames} frames, numbered from 0")
        with full_precision(grid):
            pooled = pool_frames(grid.detach(), settings.pool)
            numbers = (
                torch.arange(grid.shape[1], device=grid.device).expand(grid.shape[0], -1) if before is None else before
            )
            forced = None if centre is None else numbers == centre
            if settings.select == "tpc":
                noise = None if settings.noise is None else self._noise(pooled, state).gather(1, numbers)
                neighbours = min(settings.neighbours, grid.shape[1])
                tie, exact = settings.tie, settings.exact
                return tpc(pooled, count, neighbours=neighbours, forced=forced, noise=noise, exact=exact, tie=tie)
            if settings.select == "uniform":
                return uniform(pooled, count, forced=forced)
            if settings.select == "motion":
                return motion(pooled, count, forced=forced)
            if settings.select == "attention":
                return most_attended(_take_attention(state, grid), count, forced=forced)
            assert callable(settings.select)
            return check_choice(settings.select(grid.detach(), count), grid, count, forced)

    def _noise(self, pooled: Tensor, state: Pass) -> Tensor:
        """Noise in [0, 1) for every frame of the clip (B, F), drawn once a forward."""
        if state.noise is None:
            shape, noise = (pooled.shape[0], state.frames), self._settings.noise
            if isinstance(noise, Tensor):
                if noise.ndim not in (1, 2) or torch.broadcast_shapes(noise.shape, (1, 1))[-1] != shape[1]:
                    raise StackError(f"noise of shape {tuple(noise.shape)}: {shape} is expected")
                state.noise = noise.to(pooled.device).expand(shape)
            elif isinstance(noise, torch.Generator):
                state.noise = torch.rand(shape, generator=noise, device=noise.device).to(pooled.device)
            else:
                state.noise = torch.rand(shape, device=pooled.device)
        return state.noise

    def _show(self, state: Pass) -> None:
        index = tuple(kept.numbers for kept in state.kept)
        # While a model is exported, what arrives here is a stand-in without data.
        self._last = index if all(type(each) is Tensor for each in index) else None
        self._clip = state.frames


def take_frames(grid: Tensor, ranks: Tensor) -> Tensor:
    """The frames (B, K, J, C) of ``grid`` (B, F, J, C) whose numbers are ``ranks`` (B, K)."""
    batch, frames, joints, width = grid.shape
    rows = grid.reshape(batch * frames, joints * width).index_select(0, flat_rows(ranks, frames))
    return rows.view(batch, -1, joints, width)


def _take_attention(state: Pass, grid: Tensor) -> list[tuple[Any, Tensor]]:
    """What the temporal attention noted since the last prune point, as (B, N, F, 3 * C)."""
    noted, state.attention = state.attention, []
    batch, frames, joints, _ = grid.shape
    lines = []
    for attention, qkv in noted:
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
            'select="attention": the level before the prune point calls no attention over frames that can be read; '
            "served are modules with num_heads and a qkv layer on (B, F, C), (B * J, F, C) or (B, J, F, C) "
            'tokens, or on (B, F, J, C) with axis=1. Use select="tpc", or a callable'
        )
    return lines
