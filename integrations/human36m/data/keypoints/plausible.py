"""Whether 2D keypoints can be a person in a picture, with a guess of what is wrong where they cannot."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from ...errors import LiftingDataError

_logger = logging.getLogger(__name__)

Points = NDArray[np.float64]

_MARGIN, _MOST_OUTSIDE = 0.25, 0.05
"""Of a picture's side, how far off joints of a cut-off person may be guessed; and how many may be further off."""
_LEAST_FILLED = 0.15
"""Of a picture's sides, which a person's keypoints must reach to the right or down: 0.1 where it is 10 times too
large."""
_SMALLEST = 8.0
"""Pixels: nobody can be seen who is smaller."""
_MOSTLY = 0.9
"""Share of the frames that must say so before a posture is taken for a mistake."""
_FURTHEST = 4.0
"""Normalised, the picture's sides are at 1 and, of a tall one, at height / width: some 2.2 on a telephone."""
_ASIDE = 1 + 2 * _MARGIN
"""Normalised, how far x of joints that are guessed beside the picture may be."""
_FROM_COCO = ((5, 6), ((15, 16), (13, 14), (11, 12)))
_ENDS = {"coco": _FROM_COCO, "halpe26": _FROM_COCO, "h36m": ((11, 14), ((3, 6), (2, 5), (1, 4)))}
"""Layout -> shoulders; ankles, knees, hips."""
_LEAVE = "if they are right all the same, --unchecked (checked=False) lifts them as they are"


def check_person(
    pixels: NDArray[np.floating],
    seen: NDArray[np.bool_],
    size: tuple[float, float],
    layout: str,
    source: str,
) -> None:
    """Refuse keypoints in pixels that cannot be a person in a picture of this size.

    Args:
        pixels: (T, 17, 2 or 3).
        seen: (T, 17), which of them were detected; the others are not looked at.
        size: Width and height of the picture.
        layout: ``"coco"`` or ``"h36m"``.
        source: Where from, for messages.

    Raises:
        LiftingDataError: Shares of the picture or normalised coordinates instead of pixels, a person of a few pixels,
            joints outside of the picture or all in its upper left corner, or one that lies or stands on its head all
            the time; with the guess why.
    """
    points = pixels[..., :2].astype(np.float64)
    if not seen.any():
        return
    found = points[seen]
    wrong = _not_pixels(found, points, seen) or _outside(found, points, seen, size, layout)
    wrong = wrong or _turned(points, seen, layout)
    if wrong:
        raise LiftingDataError(f"{source}: {wrong}; {_LEAVE}")
    width, height = size
    filled = float((found.max(axis=0) / np.array(size)).max())
    if filled < _LEAST_FILLED:
        raise LiftingDataError(
            f"{source}: all keypoints lie within {found[:, 0].max():.0f} x {found[:, 1].max():.0f} pixels of the upper "
            f"left corner, {100 * filled:.0f} % of a picture of {width:g} x {height:g}: they look found in a smaller "
            f"one, give its size; {_LEAVE}"
        )
    if filled < 0.52:
        _logger.warning(
            "%s: all keypoints lie in the upper left quarter of %g x %g: were they found in a smaller picture?",
            source,
            width,
            height,
        )


def check_normalised(keypoints: NDArray[np.floating], source: str, *, later: bool = False) -> None:
    """Refuse keypoints that are not normalised as models take them; what may be right all the same is logged.

    Args:
        keypoints: (T, J, 2 or 3).
        source: Where from, for messages.
        later: They go on a clip whose first frames were looked at: more than their range is not. Of a single frame
            half of the joints may be guessed beside the picture, by somebody who leaves it.

    Raises:
        LiftingDataError: Pixels, or a person that is mostly beside the picture, or a hundredth of it or less; a third
            number that is no confidence.
    """
    check_confidences(keypoints[..., 2:], source)
    points = keypoints[..., :2].astype(np.float64)
    most = float(np.abs(points).max())
    aside = float((np.abs(points[..., 0]) > _ASIDE).mean())
    if most > _FURTHEST or aside > (_MOST_OUTSIDE if len(points) > 1 else 0.5):
        told = f"up to {most:.4g}" if most > _FURTHEST else f"with x beyond {_ASIDE:g} for {100 * aside:.0f} % of all"
        raise LiftingDataError(
            f"{source}: coordinates {told}, where normalised ones are expected, x from -1 to 1 over the picture's "
            "width: are they pixels, or of a smaller picture? normalize_screen(pixels, width, height) makes them"
        )
    if later:
        return
    extent = float(np.median(np.ptp(points, axis=1).max(axis=-1)))
    if extent < 0.01:
        raise LiftingDataError(
            f"{source}: the person is {extent:.2g} half widths of the picture large, where some 0.2 to 2 are usual: "
            "were they normalised twice?"
        )
    if points.min() >= 0 and most <= 1:
        _logger.warning(
            "%s: all coordinates are from 0 to 1, the lower right quarter of the picture: are they shares of the "
            "picture? Models take x from -1 to 1 over its width (normalize_screen)",
            source,
        )


def check_confidences(confidences: NDArray[np.floating], source: str) -> None:
    """Refuse what is no confidence from 0 to 1; some detectors go a little beyond.

    Raises:
        LiftingDataError: Negative ones, or above 1.5, with the guess why.
    """
    if not confidences.size:
        return
    low, high = float(confidences.min()), float(confidences.max())
    if low < 0 or high > 1.5:
        flags = set(np.unique(confidences).tolist()) <= {0.0, 1.0, 2.0}
        guess = "COCO's flags of visibility (0, 1, 2)" if flags else "per cent" if high > 10 else "another score"
        raise LiftingDataError(
            f"{source}: confidences from {low:.4g} to {high:.4g}, where 0 to 1 is expected: are they {guess}? Bring "
            "them to 0 to 1, or leave them out"
        )


def _not_pixels(found: Points, points: Points, seen: NDArray[np.bool_]) -> str:
    low, high = found.min(), found.max()
    if -4 < low and high < 4:
        if low >= 0 and high <= 1.5:
            guess = "shares of the picture: multiply x by its width and y by its height"
        else:
            guess = "normalised already: give pixels"
        return f"coordinates from {low:.3g} to {high:.3g} are no pixels of a person; they look like {guess}"
    shown = np.where(seen[..., None], points, np.nan)[seen.sum(axis=1) > 1]
    if not len(shown):
        return ""
    extent = float(np.median((np.nanmax(shown, axis=1) - np.nanmin(shown, axis=1)).max(axis=-1)))
    return (
        f"the person is {extent:.2g} pixels large; are the coordinates in another unit?" if extent < _SMALLEST else ""
    )


def _outside(found: Points, points: Points, seen: NDArray[np.bool_], size: tuple[float, float], layout: str) -> str:
    share = _share_outside(found, size)
    if share <= _MOST_OUTSIDE:
        return ""
    width, height = size
    told = (
        f"{100 * share:.0f} % of the keypoints lie far outside of a picture of {width:g} x {height:g} (x from "
        f"{found[:, 0].min():.0f} to {found[:, 0].max():.0f}, y from {found[:, 1].min():.0f} to "
        f"{found[:, 1].max():.0f})"
    )
    if (found < 0).any(axis=-1).mean() > _MOST_OUTSIDE >= _share_outside(found + np.array(size) / 2, size):
        return f"{told}, and inside once counted from its middle: count them from its upper left corner"
    if _share_outside(found, (height, width)) <= _MOST_OUTSIDE:
        if _lying(points, seen, layout) >= 0.5:
            return f"{told}, and inside once x and y are exchanged: they look exchanged in the file"
        return f"{told}, and inside one of {height:g} x {width:g}: width and height look exchanged"
    return f"{told}: give the size of the picture that they were found in"


def _share_outside(found: Points, size: tuple[float, float]) -> float:
    sides = np.array(size)
    return float(((found < -_MARGIN * sides) | (found > (1 + _MARGIN) * sides)).any(axis=-1).mean())


def _turned(points: Points, seen: NDArray[np.bool_], layout: str) -> str:
    up = _upwards(points, seen, layout)
    if not len(up):
        return ""
    if (up[:, 1] > np.abs(up[:, 0])).mean() >= _MOSTLY:
        return (
            "the shoulders are below the legs all the time: is y counted upwards, is the picture upside down, or is "
            "this another order of joints (--layout)?"
        )
    if _lying(points, seen, layout) >= _MOSTLY:
        return "the person lies all the time: are x and y exchanged, or is the picture turned by 90 degrees?"
    return ""


def _lying(points: Points, seen: NDArray[np.bool_], layout: str) -> float:
    """Share of the frames in which the body is more than twice as far across as it is up."""
    up = _upwards(points, seen, layout)
    return float((np.abs(up[:, 0]) > 2 * np.abs(up[:, 1])).mean()) if len(up) else 0.0


def _upwards(points: Points, seen: NDArray[np.bool_], layout: str) -> Points:
    """From the lowest of ankles, knees and hips that are seen to the shoulders, (frames, 2); y is down."""
    shoulders, below = _ENDS[layout]
    top, both = points[:, list(shoulders)].mean(axis=1), seen[:, list(shoulders)].all(axis=1)
    up = np.full((len(points), 2), np.nan)
    for parts in reversed(below):
        known = both & seen[:, list(parts)].all(axis=1)
        up[known] = (top - points[:, list(parts)].mean(axis=1))[known]
    return up[np.isfinite(up).all(axis=1)]
