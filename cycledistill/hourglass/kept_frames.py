"""Which frames are kept: what a prune point kept, what one forward knows, and frame numbers that a user set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cycledistill.cycle.modules import Recorder
from cycledistill.errors import StackError
from cycledistill.plugin.rows import flat_rows
from cycledistill.plugin.running import is_eager


@dataclass
class KeptFrames:
    """What a prune point kept.

    One word for one thing, here and for the kept tokens of pruning: ``index`` counts in the full grid, which are the
    frames of the clip; ``local`` counts among the frames that entered the block which drops. A frame's ``rank`` is its
    place among the kept ones, in the order of time.
    """

    local: Tensor
    """(B, K), ascending: the kept frames among those that entered."""
    index: Tensor
    """(B, K), ascending: the kept frames in the clip."""
    redraw: Callable[[Tensor], object] | None = None
    """Draws again what the choice drew, where a checkpointed block runs a second time: dropout then draws as before."""


@dataclass
class Pass:
    """What is known during one forward; it lives as long as that forward."""

    recorder: Recorder | None
    """Of the cycles, where the model has some."""
    grad_enabled: bool
    frames: int = 0
    """Frames of the clip."""
    kept: list[KeptFrames] = field(default_factory=list)
    """What each prune point kept, as far as the forward has come."""
    noise: Tensor | None = None
    """(B, F): numbers in [0, 1), drawn once a forward."""
    attention: list[tuple[Any, Tensor]] = field(default_factory=list)
    """The attention modules since the last prune point, each with what its ``qkv`` returned."""
    due: bool = False
    """Whether the stack has ended and its frames are still to be recovered."""

    def repeats(self) -> bool:
        """Whether cycles are running past the first, which chose the frames for all of them."""
        return self.recorder is not None and self.recorder.is_past_first_pass


def take_frames(grid: Tensor, local: Tensor) -> Tensor:
    """The frames (B, K, J, C) that stand at ``local`` (B, K) in ``grid`` (B, F, J, C)."""
    batch, frames, joints, width = grid.shape
    rows = grid.reshape(batch * frames, joints * width).index_select(0, flat_rows(local, frames))
    return rows.view(batch, -1, joints, width)


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
    """The frames that a user set, ``index`` (B, K) or (1, K), found in the ``grid`` (B, F', J, C) that enters.

    ``before`` are the numbers (B, F') of those that enter, or ``None`` where all ``frames`` of the clip do; ``count``
    are to be kept.
    """
    if index.shape[0] not in (1, grid.shape[0]) or index.shape[1] != count:
        raise StackError(
            f"model.hourglass.index is {tuple(index.shape)}, and this forward keeps {count} frames of {grid.shape[0]} "
            "clips: set an index of that shape, or model.hourglass.index = None to choose anew"
        )
    if is_eager() and int(index.max()) >= frames:
        raise StackError(f"model.hourglass.index names frame {int(index.max())}, and the clip has {frames} frames")
    index = index.to(grid.device).expand(grid.shape[0], -1)
    if before is None:
        return KeptFrames(index, index)
    return KeptFrames((before.unsqueeze(1) < index.unsqueeze(2)).sum(dim=2), index)
