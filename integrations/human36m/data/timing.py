"""When frames are: what a frame rate can be, and whether 2D and 3D of a recording are of the same moments."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..errors import LiftingDataError

Points = NDArray[np.floating]

SLOWEST, FASTEST = 1, 1000
"""Frames a second. No motion can be followed in fewer than one, and what is below is a frame's time in seconds."""

_LAGS, _STRIDE = 60, 3
"""Frames, of the 3D poses, by which the 2D may be early or late, 1.2 seconds of Human3.6M; and how coarsely they are
tried at first."""
_RATES = (0.5, 0.6, 5 / 6, 1.2, 5 / 3, 2.0)
"""Of usual frame rates to each other, beside that of the lengths."""
_SAMPLES = 48
_BETTER, _LEAST = 0.5, 4.0
"""Another timing must leave half of the distance, and explain so many pixels of it: detectors are off by some five."""


def check_rate(rate: object) -> None:
    """Refuse what is no number of frames a second.

    Raises:
        LiftingDataError: Not a number from 1 to 1000.
    """
    if isinstance(rate, (int, float, np.integer, np.floating)) and not isinstance(rate, bool):
        if SLOWEST <= rate <= FASTEST:
            return
        told = "inf" if rate > FASTEST * 1e300 else f"{rate:g}"  # a whole number may be too long for a float
        time = f"; is it a frame's time in seconds? 1 / {told} = {1 / rate:g}" if 1 / FASTEST <= rate < SLOWEST else ""
    else:
        told, time = repr(rate), ""
    raise LiftingDataError(
        f"frame_rate={told}: frames a second, a number from {SLOWEST} to {FASTEST}, is expected, such as 25{time}"
    )


def mistimed(keypoints: Points, seen: Points, apart: Callable[[Points, Points], Points] = np.subtract) -> str:
    """What is wrong with the time of 2D keypoints, in words; empty where nothing better was found than frame by frame.

    A person who stands still looks the same at all times, and nothing is said of it.

    Args:
        keypoints: (T', J, 2), pixels, T' at least T.
        seen: (T, J, 2), the 3D poses as the camera sees them, pixels.
        apart: How far, in pixels, some frames of the one are from some of the other; where the camera is not
            known, as the one that fits best sees them.
    """
    length, there = len(seen), len(keypoints)
    as_it_is = _distance(keypoints, seen, apart)
    if as_it_is < _LEAST:
        return ""
    rates = {(there - 1) / max(length - 1, 1), *_RATES} - {1.0}
    tried = {f"of {rate:.3g} times the frame rate": _distance(keypoints, seen, apart, rate=rate) for rate in rates}
    off = {lag: _distance(keypoints, seen, apart, lag=lag) for lag in range(-_LAGS, _LAGS + 1, _STRIDE)}
    best = min(off, key=off.__getitem__)
    off |= {lag: _distance(keypoints, seen, apart, lag=lag) for lag in range(best - _STRIDE + 1, best + _STRIDE)}
    best = min(off, key=off.__getitem__)
    tried[f"{abs(best)} frames {'later' if best > 0 else 'earlier'}"] = off[best]
    found = min(tried, key=tried.__getitem__)
    if tried[found] < _BETTER * as_it_is and as_it_is - tried[found] >= _LEAST:
        return (
            f"frame by frame the 2D keypoints lie {as_it_is:.0f} pixels (mean) from the 3D poses as the camera sees "
            f"them, and {tried[found]:.0f} when the 2D is taken to be {found}"
        )
    return ""


def _distance(
    keypoints: Points, seen: Points, apart: Callable[[Points, Points], Points], rate: float = 1.0, lag: int = 0
) -> float:
    """Mean pixels between 3D frames and the 2D of other moments, ``rate * frame + lag``; inf where few have any."""
    some = np.linspace(0, len(seen) - 1, num=min(_SAMPLES, len(seen))).astype(int)
    at = rate * some + lag
    inside = (at >= 0) & (at <= len(keypoints) - 1)
    if inside.mean() < 0.5:
        return float("inf")
    low = np.floor(at[inside]).astype(int)
    part = (at[inside] - low)[:, None, None]
    between = (1 - part) * keypoints[low] + part * keypoints[np.minimum(low + 1, len(keypoints) - 1)]
    return float(np.linalg.norm(apart(between, seen[some[inside]]), axis=-1).mean())
