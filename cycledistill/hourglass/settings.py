"""How a model became an hourglass: its prune points, what they keep, and for which clips and tokens.

A class token that were counted as a frame would be dropped; patches of a video that were, would be dropped one by one.
So the token axis is held against what the model declares, in every forward, and as early as its length is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from cycledistill.errors import StackError

Select = str | Callable[[Tensor, int], Tensor]

LEARNED = (True, "local")
"""Recoveries with weights."""


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
        return self.recover in LEARNED

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


@dataclass(frozen=True)
class TokenAxis:
    """The token axis as a model declares it, and as ``wrap_hourglass`` was told."""

    prefix: int
    """Tokens in front, never dropped nor counted."""
    frames: int | None
    """Frames of a clip, given or declared."""
    patches: int | None
    """Tokens of one frame of a video, or of an image, that the model declares."""
    lengths: str
    """Which other clips are taken, as in `Settings`."""
    is_video: bool
    """Whether the model declares frames of a video, each of several patches."""
    is_image: bool = False
    """Whether the model itself embeds the patches of an image, and declares no frames."""

    @property
    def patches_of_a_step(self) -> int:
        """How many tokens of a video belong to one step in time; 1 of any other model."""
        return self.patches or 1 if self.is_video else 1

    def check(self, path: str, tokens: int, *, flat: bool) -> None:
        """Refuse ``tokens`` in front of a prune point, those in front included, that cannot be one token a frame.

        ``flat``: they are those of the model itself, and no layout told frames from what stands in them.
        """
        behind = tokens - self.prefix
        front = f", {self.prefix} of them in front" if self.prefix else ""
        if behind < 1 and self.prefix:
            raise StackError(f"prefix={self.prefix}: {path} receives {tokens} tokens, so no frame is among them")
        if self.patches_of_a_step > 1 and (flat or behind == self.patches_of_a_step * (self.frames or 0)):
            raise StackError(
                f"{path} receives {tokens} tokens{front}, of a video of which the model declares {self.patches} "
                "patches of every step in time (the frames of a tubelet are one step), and an hourglass drops whole "
                f"steps: pass layout=(lambda x: x.unflatten(1, (-1, {self.patches})), lambda x: x.flatten(1, 2)), with "
                "which the patches of a step stay together, keep in steps, and neither frames nor prefix, which the "
                "model declares"
            )
        if self.frames is None and (self.is_image or behind == self.patches):
            raise StackError(
                f"{path} receives {tokens} tokens{front}, and the model declares the patches of an image and no "
                "frames: an hourglass drops frames, and wrap_pruning drops patches. If each is a frame after all, pass "
                f"frames={behind}"
            )
        if self.frames is not None and behind > self.frames and self.lengths != "any":
            raise StackError(
                f"{path} receives {tokens} tokens{front}, where the clip has {self.frames} frames: pass "
                f"prefix={tokens - self.frames} if so many stand in front and are no frames (a class token), "
                'lengths="any" if clips may be longer, or a layout'
            )


def check_noise(noise: Any) -> str | Tensor | torch.Generator | None:
    """Refuse noise that is none of ``None``, ``"uniform"``, a tensor, a generator."""
    if noise is None or isinstance(noise, torch.Generator):
        return noise
    if isinstance(noise, str) and noise == "uniform":
        return noise
    if isinstance(noise, Tensor) and noise.is_floating_point():
        return noise
    raise StackError(f'noise={noise!r}: None, "uniform", a tensor (B, F) of numbers in [0, 1), or a torch.Generator')
