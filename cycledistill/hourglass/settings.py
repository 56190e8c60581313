"""How a model became an hourglass: its prune points, what they keep, and for clips of which length."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from cycledistill.errors import StackError

Select = str | Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Settings:
    """How a model was wrapped; every field is described at :func:`wrap_hourglass`."""

    layers: tuple[int, ...]
    keep: tuple[int | float, ...]
    select: Select
    recover: bool | str
    pool: Literal["mean", "concat"]
    frames: int | None
    prefix: int
    lengths: str
    centre: int | bool
    neighbours: int
    exact: bool
    tie: Literal["index", "noise"] | None
    noise: str | Tensor | torch.Generator | None

    @property
    def learns(self) -> bool:
        """Whether there are tables for a given number of frames."""
        return self.recover is True

    def centre_of(self, frames: int) -> int | None:
        """The frame that is always kept in a clip of ``frames``."""
        return (frames - 1) // 2 if self.centre is True else None if self.centre is False else self.centre

    def count(self, point: int, frames: int) -> int:
        """How many frames of a clip are left after a prune point; refuses a clip that the settings do not fit."""
        keep = self.keep[point]
        if frames < 1:
            raise StackError("the clip has no frames: pass at least one")
        own = self.frames
        if self.learns and own is not None and frames != own:
            if self.lengths == "exact" or (self.lengths == "shorter" and frames > own):
                raise StackError(
                    f"a clip of {frames} frames: the tables of the hourglass are for {own}. Cut or pad the clip, or "
                    'wrap with lengths="any" (tables interpolated along time) or "shorter" (their first entries)'
                )
            keep = keep / own if isinstance(keep, int) else keep
        count = math.ceil(frames * keep - 1e-9) if isinstance(keep, float) else keep
        if count > frames:
            raise StackError(f"keep={keep}: the clip has {frames} frames; keep fewer, or a share of them as keep=1/3")
        return count


def check_noise(noise: Any) -> str | Tensor | torch.Generator | None:
    """Refuse noise that is none of ``None``, ``"uniform"``, a tensor, a generator."""
    if noise is None or isinstance(noise, torch.Generator):
        return noise
    if isinstance(noise, str) and noise == "uniform":
        return noise
    if isinstance(noise, Tensor) and noise.is_floating_point():
        return noise
    raise StackError(f'noise={noise!r}: None, "uniform", a tensor (B, F) of numbers in [0, 1), or a torch.Generator')
