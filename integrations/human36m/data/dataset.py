"""Batches of windows of clips, in an order that depends on seed and epoch alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cycledistill.recipes.run.batches import EpochBatches, Key, batch_loader

from ..errors import LiftingDataError
from .clips import Clip
from .skeleton import mirror
from .windows import centred_bounds, chunk_bounds, log_short, log_uncovered, window_frames

Flip = Literal["none", "random", "both"]
FLIPS = get_args(Flip)


class Batch(TypedDict):
    """What the data loader yields."""

    inputs: Tensor
    """(B, F, 17, 2 or 3), normalised 2D."""
    targets: Tensor
    """(B, F, 17, 3), metres, root-relative."""
    inside: Tensor
    """(B, F), false where the edge of a clip is repeated, and in frames of it that do not count."""


class LiftWindows(Dataset[Batch]):
    """Windows of clips: ``windows[epoch, number]``, or ``windows[number]`` of epoch 0.

    Args:
        clips: What to cut; those shorter than a window have their edges repeated, which is logged.
        frames: Frames of a window.
        stride: From one window to the next; default, ``frames``, or 1 for centred windows. Further apart than
            ``frames``, the frames between windows are left out, which is logged.
        centred: One window around every ``stride``-th frame, instead of windows that cover the clip.
        flip: ``"both"``: every window and its mirror image, as MixSTE trains; ``"random"``: one of them, drawn anew in
            each epoch.
        seed: Of the random mirroring.

    Raises:
        LiftingDataError: No clips, an impossible window, or an unknown ``flip``.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        frames: int,
        stride: int | None = None,
        *,
        centred: bool = False,
        flip: Flip = "none",
        seed: int = 0,
    ) -> None:
        if not clips:
            raise LiftingDataError("no clips to take windows from")
        if flip not in FLIPS:
            raise LiftingDataError(f"flip={flip!r}: one of {', '.join(map(repr, FLIPS))} is expected")
        self.clips, self.frames, self.flip, self.seed = list(clips), frames, flip, seed
        stride = (1 if centred else frames) if stride is None else stride
        bounds = [(centred_bounds if centred else chunk_bounds)(len(clip), frames, stride) for clip in clips]
        lengths = [len(clip) for clip in clips]
        log_short(lengths, frames)
        if not centred:
            log_uncovered(lengths, frames, stride)
        self.owner = np.repeat(np.arange(len(clips)), [len(own) for own in bounds])
        self.bounds = np.concatenate(bounds)

    def __len__(self) -> int:
        """The number of windows, mirror images included where every window has one."""
        return len(self.bounds) * (2 if self.flip == "both" else 1)

    def __getitem__(self, key: Key | int) -> Batch:
        """One window, without the batch dimension.

        Raises:
            IndexError: There is no window of this number.
        """
        batch = self.__getitems__([key])
        return {"inputs": batch["inputs"][0], "targets": batch["targets"][0], "inside": batch["inside"][0]}

    def __getitems__(self, keys: Sequence[Key | int]) -> Batch:
        """The windows of a batch."""
        inputs, targets, inside = [], [], []
        for key in keys:
            epoch, number = key if isinstance(key, tuple) else (0, key)
            if not 0 <= number < len(self):
                raise IndexError(f"window {number}: there are {len(self)}, numbered from 0")
            window = number % len(self.bounds)
            clip = self.clips[self.owner[window]]
            places, own = window_frames(self.bounds[window : window + 1], len(clip))
            seen, poses = clip.inputs[places[0]], clip.targets[places[0]]
            if self._is_mirrored(epoch, number):
                seen, poses = mirror(seen), mirror(poses)
            inputs.append(seen)
            targets.append(poses)
            inside.append(own[0] if clip.valid is None else own[0] & clip.valid[places[0]])
        return {
            "inputs": torch.from_numpy(np.stack(inputs)),
            "targets": torch.from_numpy(np.stack(targets)),
            "inside": torch.from_numpy(np.stack(inside)),
        }

    def _is_mirrored(self, epoch: int, number: int) -> bool:
        if self.flip == "random":
            return bool(np.random.default_rng((self.seed, epoch, number)).integers(2))
        return self.flip == "both" and number >= len(self.bounds)


WindowBatches = EpochBatches
"""Batches of window numbers: ``WindowBatches(len(windows), batch_size, shuffle=True)``."""


def window_loader(
    windows: LiftWindows, batches: WindowBatches, workers: int = 0, pin_memory: bool = False
) -> DataLoader[Batch]:
    """A data loader over ``windows`` in the order of ``batches``; set ``batches.epoch`` before each epoch."""
    return batch_loader(windows, batches, workers, pin_memory, windows.seed)
