"""Whether joints and boxes of a file are in one unit: joints lie in their boxes, and in another reading they do not."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from ..images import PoseDataError
from .boxes import MOST

_logger = logging.getLogger(__name__)

_FITS = 0.75  # of the labelled joints are in their boxes in any file that is right; in COCO, CrowdPose and LSP .92 to 1
_ENOUGH = 20  # boxes that may be refused, or doubted, for where their joints lie without a reading that fits

Array = NDArray[np.float64]


def refuse_other_units(boxes: Array, sizes: Array, points: Array) -> None:
    """Refuse annotations whose joints are not where their boxes are, and say in which reading they would be.

    Looked for are boxes, or joints, as fractions or percents of the picture; boxes as two corners, which needs no size
    of the picture; or, where no reading fits, joints that are nearly all far outside their boxes. What is odd and may
    be right is warned of: a quarter of the joints outside; all boxes and joints within 100 pixels, as where both are
    percents.

    Args:
        boxes: (N, 4), of annotations with labelled joints.
        sizes: (N, 2) width and height of their pictures, nan where unknown.
        points: (N, K, 3) their joints: x, y, visibility.

    Raises:
        PoseDataError: The guess is named.
    """
    sized = (boxes[:, 2:] > 0).all(axis=1)
    boxes, sizes, points = boxes[sized], sizes[sized], points[sized]
    if not len(boxes):
        return
    labelled, places = points[..., 2] > 0, points[..., :2]
    where = _example(boxes[0], places[0][labelled[0]][0])
    far = np.concatenate([boxes[:, :2] - boxes[:, 2:], 3 * boxes[:, 2:]], axis=1)  # three times as wide and high
    share = _share(places, boxes, labelled)
    if share >= _FITS:
        _refuse_corners(boxes, places, labelled)
        _warn_of_percents(boxes, sizes, places[labelled])
        return
    if (places[labelled] <= 1).all(axis=1).mean() >= MOST and places[labelled].max() > 0:
        raise PoseDataError(_said(where, "joints", "fractions"))
    scaled = np.concatenate([sizes, sizes], axis=1) / 100
    if _share(places * scaled[:, None, :2], boxes, labelled) >= MOST:
        raise PoseDataError(_said(where, "joints", "percents"))
    # without sizes nothing is in a box that is not a number
    for unit, factor in (("fractions", 100), ("percents", 1)):
        if _share(places, boxes * scaled * factor, labelled) >= MOST:
            raise PoseDataError(_said(where, "boxes", unit))
    if len(boxes) >= _ENOUGH and _share(places, far, labelled) <= 1 - MOST:
        raise PoseDataError(
            f"nearly all labelled joints are far outside their box ({where}): boxes as x, y, width, height and joints "
            "as x, y, visibility, both in pixels of one picture, are expected"
        )
    _logger.warning(
        "%.0f %% of the labelled joints are outside their box (%s): are both right?", 100 - 100 * share, where
    )


def _said(where: str, what: str, unit: str) -> str:
    other = "boxes" if what == "joints" else "joints"
    return (
        f"most labelled joints are outside their box ({where}), as where the {what} are {unit} of the picture and the "
        f"{other} are not: pixels are expected for both (multiply by the picture's width and height"
        f"{', divided by 100' if unit == 'percents' else ''})"
    )


def _refuse_corners(boxes: Array, places: Array, labelled: NDArray[np.bool_]) -> None:
    """Two corners, read as x, y, width, height, are boxes whose right and lower parts have no joints."""
    first, second = boxes[:, :2], boxes[:, 2:]
    corners = np.concatenate([first, second - first], axis=1)
    ordered, apart = (second > first).all(axis=1), (first > (second - first) / 3).any(axis=1)
    if len(boxes) < _ENOUGH or ordered.mean() < MOST or apart.mean() < 0.2:
        return
    if _share(places[ordered], corners[ordered], labelled[ordered]) >= MOST:
        raise PoseDataError(
            f"of {len(boxes)} boxes read as left, top, right, bottom nearly all hold their joints, so they look like "
            f"two corners ({', '.join(f'{value:g}' for value in boxes[apart][0])}): x, y, width, height is expected "
            "(width = right - left, height = bottom - top)"
        )


def _warn_of_percents(boxes: Array, sizes: Array, joints: Array) -> None:
    known = ~np.isnan(sizes).any(axis=1)
    inside = (boxes[:, :2] + boxes[:, 2:]).max() <= 100 and joints.max() <= 100
    if len(boxes) >= _ENOUGH and known.any() and inside and sizes[known].min() >= 200:
        _logger.warning(
            "all %d boxes and their joints are in the first 100 x 100 pixels of larger pictures: are they percents of "
            "the picture? Pixels are expected",
            len(boxes),
        )


def _share(places: Array, boxes: Array, labelled: NDArray[np.bool_]) -> float:
    """The share of the labelled joints that are in their box, 0 for boxes of pictures without a size."""
    low, high = boxes[:, None, :2], boxes[:, None, :2] + boxes[:, None, 2:]
    slack = boxes[:, None, 2:] * 0.02 + 1e-9
    inside = np.all((places >= low - slack) & (places <= high + slack), axis=-1)
    return float(inside[labelled].mean())


def _example(box: Array, joint: Array) -> str:
    shown = ", ".join(f"{value:g}" for value in box)
    return f"a joint at {joint[0]:g}, {joint[1]:g}, its box {shown}"
