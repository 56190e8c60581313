"""Windows that see a bounded number of frames after the one they answer for: of a stream, whose future is not there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import LiftingDataError

Places = NDArray[np.int64]


def newest_frames(times: Places, delay: int, every: int, length: int | None = None) -> Places:
    """The newest frame that the pose of each frame is made from, ``delay`` frames later or fewer.

    The model runs at every ``every``-th frame, for so many frames at once; the oldest of them waits for ``delay``
    frames, the others for fewer. At a clip's end there is nothing left to wait for.

    Args:
        times: Numbers of frames, from 0.
        delay: Frames after its own that a pose waits for at most.
        every: Frames from one run of the model to the next, at most ``delay + 1``.
        length: Frames of the clip; ``None``: it goes on.

    Example:
        >>> newest_frames(np.arange(5), 2, 1, 5).tolist(), newest_frames(np.arange(5), 2, 2, 5).tolist()
        ([2, 3, 4, 4, 4], [2, 2, 4, 4, 4])
    """
    newest = delay + times // every * every
    return newest if length is None else np.minimum(newest, length - 1)


def causal_windows(times: Places, newest: Places, frames: int, centre: bool) -> tuple[Places, Places, Places]:
    """Windows that hold no frame after ``newest``; before the first frame, that is repeated.

    A model of sequences answers for a frame at its place in the window that ends with the newest one. One that answers
    for the centre frame alone gets a window around the frame, in which the newest one is repeated for those after it.

    Args:
        times: (N,), the frames whose poses are wanted.
        newest: (N,), of :func:`newest_frames`.
        frames: Of a window.
        centre: Whether the model answers for the centre frame alone.

    Returns:
        The frame at each place of each window, (windows, frames); for each of ``times``, which window, and which of its
        poses: 0 where the window has only one.

    Example:
        >>> places, window, place = causal_windows(np.arange(3), np.array([1, 2, 2]), 3, centre=False)
        >>> places.tolist(), window.tolist(), place.tolist()
        ([[0, 0, 1], [0, 1, 2]], [0, 1, 1], [1, 1, 2])
    """
    steps = np.arange(frames, dtype=np.int64)
    if centre:
        starts = times - (frames - 1) // 2
        return (starts[:, None] + steps).clip(0, newest[:, None]), np.arange(len(times)), np.zeros_like(times)
    ends, window = np.unique(newest, return_inverse=True)
    window = window.reshape(-1)
    return (ends[:, None] - frames + 1 + steps).clip(0), window, frames - 1 - (ends[window] - times)


def check_delay(delay: int, every: int, frames: int, centre: bool) -> None:
    """Refuse what is no delay for windows of so many frames.

    Raises:
        LiftingDataError: No whole number, below 0 or more than there is use for; a model that would run too seldom.
    """
    most = frames // 2 if centre else frames - 1
    if isinstance(delay, bool) or not isinstance(delay, int) or not 0 <= delay <= most:
        raise LiftingDataError(
            f"delay={delay!r}: a whole number of frames from 0, the past alone, to {most} is expected, for windows of "
            f"{frames}{', whose centre frame is wanted' if centre else ''}"
        )
    if isinstance(every, bool) or not isinstance(every, int) or not 1 <= every <= delay + 1:
        raise LiftingDataError(
            f"every={every!r}: a whole number of frames from 1 to delay + 1 = {delay + 1} is expected: poses would "
            "wait for the next run of the model longer than the delay"
        )
