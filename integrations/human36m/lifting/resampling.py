"""Motion at another frame rate: what is known at some times, at others between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from cycledistill.versions import require

from ..data.timing import check_rate

require("scipy")

_NEAR = 1.1
"""Rates that are less than so many times each other count as one: persons differ more than that in their pace."""


def is_near(rate: float, other: float) -> bool:
    """Whether two frame rates are too close to be worth resampling.

    Raises:
        LiftingDataError: A rate that is none.
    """
    check_rate(rate)
    check_rate(other)
    return max(rate, other) < _NEAR * min(rate, other)


def resampled_length(length: int, rate: float, wanted: float) -> int:
    """Frames of a clip at another rate, its first and last frame kept; the rate is met as nearly as that allows.

    Example:
        >>> resampled_length(31, 30, 50)
        51
    """
    check_rate(rate)
    check_rate(wanted)
    return max(round((length - 1) * wanted / rate), 1) + 1 if length > 1 else length


def resample(motion: NDArray[np.floating], length: int) -> NDArray[np.float32]:
    """A motion of T frames told by ``length`` frames, evenly over the same time: the first and the last stay.

    A cubic spline goes through every frame. Nothing is filtered: frames that are left out are as if never filmed, and
    noise stays what it is, as it does for a model that was trained on a camera of the other rate.

    Args:
        motion: (T, ...).
        length: Frames.

    Returns:
        (length, ...).

    Example:
        >>> resample(np.array([[0.0], [2.0], [4.0]]), 5).ravel().tolist()
        [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    if length == len(motion) or len(motion) == 1:
        return np.repeat(motion, length, axis=0).astype(np.float32) if len(motion) == 1 else motion.astype(np.float32)
    spline = CubicSpline(np.arange(len(motion)), motion.astype(np.float64), axis=0)
    found: NDArray[np.float32] = spline(np.linspace(0, len(motion) - 1, length)).astype(np.float32)
    return found


def resample_keypoints(keypoints: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Keypoints (T, J, 2 or 3) told by ``length`` frames; a confidence is interpolated linearly, and stays in range."""
    found = resample(keypoints, length)
    if keypoints.shape[2] == 3:
        old, new = np.arange(len(keypoints)), np.linspace(0, len(keypoints) - 1, length)
        for joint in range(keypoints.shape[1]):
            found[:, joint, 2] = np.interp(new, old, keypoints[:, joint, 2])
    return found
