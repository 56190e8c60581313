"""Frame numbers that a user gave, or a user's function returned: checked, and as ranks among the frames left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cycledistill.chain import StackError


@dataclass
class KeptFrames:
    """What a prune point kept: ranks among the frames that entered it, and numbers in the clip; both (B, K)."""

    ranks: Tensor
    numbers: Tensor
    redraw: Callable[[Tensor], object] | None = None
    """Draws again what the choice drew, where a checkpointed level runs a second time: dropout then draws as before."""


def check_index(index: Any, before: Tensor | None) -> Tensor:
    """Frame numbers (B, K) that are ascending, and among those of the prune point ``before``."""
    if not isinstance(index, Tensor) or index.ndim != 2 or index.is_floating_point() or index.dtype == torch.bool:
        given = f"a {index.dtype} tensor {tuple(index.shape)}" if isinstance(index, Tensor) else repr(index)
        raise StackError(f"index: {given} was given; whole frame numbers (B, K) are expected")
    if index.numel() == 0 or int(index.min()) < 0 or not bool((index[:, 1:] > index[:, :-1]).all()):
        raise StackError("index: frame numbers are expected in the order of time, none twice, from 0")
    if before is not None:
        if len(index) != len(before) or not bool((index.unsqueeze(2) == before.unsqueeze(1)).any(2).all()):
            raise StackError("index: a later prune point can keep only frames that an earlier one kept")
    return index


def given_frames(index: Tensor, before: Tensor | None, grid: Tensor, count: int, frames: int) -> KeptFrames:
    """The frames of ``grid`` (B, F', J, C) numbered ``index`` in the clip; ``before`` are the numbers of all of it."""
    if index.shape[0] not in (1, grid.shape[0]) or index.shape[1] != count:
        raise StackError(
            f"model.hourglass.index is {tuple(index.shape)}, and this forward keeps {count} frames of {grid.shape[0]} "
            "clips: set an index of that shape, or model.hourglass.index = None to choose anew"
        )
    if not torch.compiler.is_compiling() and int(index.max()) >= frames:
        raise StackError(f"model.hourglass.index names frame {int(index.max())}, and the clip has {frames} frames")
    numbers = index.to(grid.device).expand(grid.shape[0], -1)
    if before is None:
        return KeptFrames(numbers, numbers)
    return KeptFrames((before.unsqueeze(1) < numbers.unsqueeze(2)).sum(dim=2), numbers)


def check_choice(index: Any, grid: Tensor, count: int, forced: Tensor | None) -> Tensor:
    """What a user's selection returned, in the order of time."""
    expected = (grid.shape[0], count)
    if not isinstance(index, Tensor) or index.is_floating_point() or tuple(index.shape) != expected:
        given = f"a {index.dtype} tensor {tuple(index.shape)}" if isinstance(index, Tensor) else repr(index)
        raise StackError(f"select returned {given}; whole frame numbers of shape {expected} are expected")
    index = index.to(grid.device).long().sort(dim=1).values
    if not torch.compiler.is_compiling() and not index.is_meta and index.numel():
        if int(index.min()) < 0 or int(index.max()) >= grid.shape[1] or bool((index[:, 1:] == index[:, :-1]).any()):
            raise StackError(f"select returned a frame twice, or one outside the {grid.shape[1]} it was given")
        if forced is not None and not bool(forced.gather(1, index).any(dim=1).all()):
            raise StackError("select did not keep the centre frame, which is always kept here: wrap with centre=False")
    return index
