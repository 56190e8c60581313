"""Whether points from several views can be a body: its size, and limbs that keep their length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...data.cameras import Camera
from ...errors import LiftingDataError
from ..triangulation import Triangulated

Array = NDArray[np.float64]

_TALLEST, _SMALLEST = 3.0, 0.3
_FROM_COCO = ((5, 7), (7, 9), (11, 13), (13, 15)), ((6, 8), (8, 10), (12, 14), (14, 16))
_LIMBS = {
    "coco": _FROM_COCO,
    "halpe26": _FROM_COCO,
    "h36m": (((11, 12), (12, 13), (4, 5), (5, 6)), ((14, 15), (15, 16), (1, 2), (2, 3))),
}
"""Layout -> upper and lower arm, upper and lower leg: the left ones, the right ones."""
_MOST_CHANGE, _MOST_APART = 0.2, 0.25
"""How much the lengths of limbs may change over time, and differ between left and right: shares."""
_UNEXPLAINED = 2.0
"""Both may be so many times what the errors in pixels explain: of few views near each other, or noisy ones, much."""
_FEWEST, _FEWEST_LIMBS = 5, 3
"""Frames that tell how much a length changes, and limbs that tell of a body."""
_MEDIAN_TO_SIGMA = 1.4826


def check_size(points: Array) -> None:
    """Refuse persons who are too large or too small: their poses are in another unit than metres.

    Args:
        points: (T, J, 3), NaN where a joint is not known.

    Raises:
        LiftingDataError: They are; with the unit that it looks like.
    """
    known = np.isfinite(points[..., 0])
    whole = points[known.mean(axis=1) > 0.5]
    if not len(whole):
        return
    size = float(np.median((np.nanmax(whole, axis=1) - np.nanmin(whole, axis=1)).max(axis=-1)))
    if _SMALLEST <= size <= _TALLEST:
        return
    guesses = [unit for unit, factor in (("mm", 0.001), ("cm", 0.01)) if _SMALLEST <= size * factor <= _TALLEST]
    guess = f" It looks like {guesses[0]}." if guesses else ""
    raise LiftingDataError(
        f"the person is {size:.3g} m large: the calibration's t is in another unit.{guess} Give the unit (--unit mm, "
        "cm, or the metres of one, such as 0.025 for squares of a board of 25 mm)"
    )


def check_limbs(found: Triangulated, cameras: Sequence[Camera], layout: str) -> None:
    """Refuse a body whose limbs change their length, or differ from those of the other side; a few frames do not tell.

    Args:
        found: (T, J, 3) points, by all cameras.
        cameras: V of them.
        layout: ``"coco"``, ``"h36m"`` or ``"halpe26"``.

    Raises:
        LiftingDataError: By more than a body's can and the errors in pixels explain, in the median limb, or in three
            pairs of limbs.
    """
    left, right = _LIMBS[layout]
    lengths, noise = _lengths(found, cameras, (*left, *right))
    often = np.isfinite(lengths).sum(axis=0) >= _FEWEST
    if often.sum() < _FEWEST_LIMBS:
        return
    usual = np.full(lengths.shape[1], np.nan)
    usual[often] = np.nanmedian(lengths[:, often], axis=0)
    spread = np.nanmedian(np.abs(lengths[:, often] - usual[often]), axis=0) / usual[often]
    told = [(_MEDIAN_TO_SIGMA * float(np.median(spread)), _MOST_CHANGE, "change their lengths from frame to frame")]
    sides = np.abs(np.log(usual[: len(left)] / usual[len(left) :]))
    sides = np.sort(sides[np.isfinite(sides)])
    if len(sides) >= _FEWEST_LIMBS:  # so many pairs of limbs differ by it: an arm that is hidden has two
        told.append((float(sides[-_FEWEST_LIMBS]), _MOST_APART, "differ between left and right"))
    for share, most, what in told:
        if share > most and share > _UNEXPLAINED * noise:
            raise LiftingDataError(
                f"arms and legs {what} by {100 * share:.0f} %, and the errors in pixels explain "
                f"{100 * noise:.0f} %: are the views of one person and of the same moments, every file its camera's, "
                "and left joints left in all of them? --unchecked (checked=False) takes them as they are"
            )


def _lengths(found: Triangulated, cameras: Sequence[Camera], limbs: Sequence[tuple[int, int]]) -> tuple[Array, float]:
    """Metres, (T, limbs), NaN where an end is not known; and the share that errors in pixels explain, median."""
    starts, ends = [limb[0] for limb in limbs], [limb[1] for limb in limbs]
    along = found.points[:, starts] - found.points[:, ends]
    lengths = np.linalg.norm(along, axis=-1)
    known = np.isfinite(lengths) & (lengths > 0)
    if not known.any():
        return np.full_like(lengths, np.nan), 0.0
    lengths = np.where(known, lengths, np.nan)
    variance = _variance(found, cameras)
    unit = (along / lengths[..., None])[known]
    both = (variance[:, starts] + variance[:, ends])[known]
    own = np.sqrt(np.maximum(np.einsum("ni,nij,nj->n", unit, both, unit), 0)) / lengths[known]
    return lengths, float(np.median(own))


def _variance(found: Triangulated, cameras: Sequence[Camera]) -> Array:
    """(T, J, 3, 3), square metres: what the pixels that views are off by let points be off by."""
    known = np.isfinite(found.error)
    views = found.used.sum(axis=0)
    told = np.zeros((*known.shape, 3, 3))
    for camera, used in zip(cameras, found.used, strict=True):
        ray = found.points - camera.position
        far = np.linalg.norm(ray, axis=-1)[..., None, None]
        ray = ray / far[..., 0]
        across = np.eye(3) - ray[..., :, None] * ray[..., None, :]
        told += np.where(used[..., None, None], (camera.focal.mean() / far) ** 2 * across, 0)
    variance = np.full_like(told, np.nan)
    variance[known] = np.linalg.inv(told[known])
    # V views have 2 V numbers, of which a point takes 3 for itself. `error` is a mean of distances, not their root mean
    # square: of normal errors its square is pi / 4 of that.
    free = views[known] * found.error[known] ** 2 / (2 * views[known] - 3)
    return np.asarray(variance * float(np.mean(free)) * 4 / np.pi)
