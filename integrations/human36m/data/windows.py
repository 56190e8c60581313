"""Cutting clips of any length into windows of one length, with the first and last frame repeated outside.

Source: VideoPose3D's chunked generator, as MixSTE, MHFormer and HoT use it.
"""

from __future__ import annotations

import logging
import math

import numpy as np
from numpy.typing import NDArray

from ..errors import LiftingDataError

_logger = logging.getLogger(__name__)


def chunk_bounds(length: int, frames: int, stride: int | None = None) -> NDArray[np.int64]:
    """Start and end of the windows that cover a clip, a stride apart, together centred on it.

    With a stride above ``frames`` they do not cover it: the frames between two windows are in none.

    Args:
        length: Frames of the clip.
        frames: Frames of a window.
        stride: Frames from one window to the next; default, ``frames``: each frame is in one window.

    Returns:
        (windows, 2). A start may be below 0 and an end above ``length``: there the edge frame is repeated.

    Raises:
        LiftingDataError: An empty clip, or a window or stride that is no whole number of at least 1.

    Example:
        >>> chunk_bounds(500, 243).tolist()
        [[-114, 129], [129, 372], [372, 615]]
    """
    stride = frames if stride is None else stride
    _check(length, frames, stride)
    count = max(1, math.ceil((length - frames) / stride + 1))
    before = ((count - 1) * stride + frames - length) // 2
    starts = np.arange(count, dtype=np.int64) * stride - before
    return np.stack([starts, starts + frames], axis=1)


def centred_bounds(length: int, frames: int, stride: int = 1) -> NDArray[np.int64]:
    """Start and end of one window around every ``stride``-th frame; the frame is number ``(frames - 1) // 2`` in it.

    Args:
        length: Frames of the clip.
        frames: Frames of a window.
        stride: Frames from one centre to the next.

    Returns:
        (windows, 2).

    Raises:
        LiftingDataError: An empty clip, or a window or stride that is no whole number of at least 1.

    Example:
        >>> centred_bounds(3, 5).tolist()
        [[-2, 3], [-1, 4], [0, 5]]
    """
    _check(length, frames, stride)
    starts = np.arange(0, length, stride, dtype=np.int64) - (frames - 1) // 2
    return np.stack([starts, starts + frames], axis=1)


def window_frames(bounds: NDArray[np.int64], length: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The frame of the clip at each place of each window, and whether it is one of its own or an edge repeated.

    Args:
        bounds: (windows, 2).
        length: Frames of the clip.

    Returns:
        Frame numbers (windows, frames) in [0, length), and (windows, frames) true inside the clip.
    """
    asked = bounds[:, :1] + np.arange(bounds[0, 1] - bounds[0, 0], dtype=np.int64)
    return asked.clip(0, length - 1), (asked >= 0) & (asked < length)


def blend_windows(
    found: NDArray[np.float32], places: NDArray[np.int64], inside: NDArray[np.bool_], length: int, overlap: int
) -> NDArray[np.float32]:
    """The frames of a clip from windows that overlap: where two do, one is faded into the other.

    Args:
        found: (windows, frames, ...), what each window says of its frames.
        places: (windows, frames), the frame of the clip at each place, from :func:`window_frames`.
        inside: (windows, frames), whether it is one of the clip's own.
        length: Frames of the clip.
        overlap: Frames that neighbouring windows share; 0: the windows side by side as they are.

    Returns:
        (length, ...).

    Example:
        >>> steps = np.array([[[0.0]] * 4, [[3.0]] * 4], np.float32)  # two windows of four frames, two of them shared
        >>> blend_windows(steps, *window_frames(chunk_bounds(6, 4, 2), 6), 6, 2).ravel().tolist()
        [0.0, 0.0, 1.0, 2.0, 3.0, 3.0]
    """
    frames = found.shape[1]
    ramp = np.minimum(np.arange(1, frames + 1), np.arange(frames, 0, -1)).clip(max=overlap + 1).astype(np.float64)
    weights = inside * ramp
    total, blended = np.zeros(length), np.zeros((length, *found.shape[2:]))
    np.add.at(total, places, weights)
    np.add.at(blended, places, found * weights.reshape(*weights.shape, *[1] * (found.ndim - 2)))
    return (blended / total.reshape(-1, *[1] * (found.ndim - 2))).astype(np.float32)


def log_short(lengths: list[int], frames: int) -> None:
    """Say how many clips are shorter than the window, and that their edges are repeated."""
    short = [length for length in lengths if length < frames]
    if short:
        _logger.warning(
            "%d of %d clips are shorter than the window of %d frames (the shortest: %d); their first and last frames "
            "are repeated to fill it",
            len(short),
            len(lengths),
            frames,
            min(short),
        )


def log_uncovered(lengths: list[int], frames: int, stride: int) -> None:
    """Say how many frames of the clips are in no window, where windows stand further apart than they are long."""
    inside = [window_frames(chunk_bounds(length, frames, stride), length)[1].sum() for length in lengths]
    lost = sum(lengths) - int(sum(inside))
    if stride > frames and lost:
        _logger.warning(
            "windows of %d frames are %d apart: %d of %d frames are in none (a stride up to the window covers all)",
            frames,
            stride,
            lost,
            sum(lengths),
        )


def _check(length: int, frames: int, stride: int) -> None:
    if length < 1:
        raise LiftingDataError("an empty clip cannot be cut into windows: it needs at least one frame")
    whole = all(isinstance(each, (int, np.integer)) and not isinstance(each, bool) for each in (frames, stride))
    if not whole or frames < 1 or stride < 1:
        raise LiftingDataError(
            f"a window of {frames!r} frames, {stride!r} frames apart: both must be whole numbers of at least 1"
        )
