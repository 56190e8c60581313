"""Boxes of persons: x, y, width, height in pixels of the picture; other forms are recognised, and refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cycledistill.recipes.reading.plain import is_finite

from ..images import PoseDataError

# Detectors cut their boxes at the border of the picture; corners that are read as sizes reach far beyond it.
_FAR = 1 / 3  # of a box's own side
_MANY = 0.2  # of the boxes
MOST = 0.9  # of the boxes: a few are wrong in every large file, and do not hide what the rest says
"""The share of boxes that decides of which form all are."""


def is_numbers(values: Any, count: int | None = None) -> bool:
    """Whether ``values`` is a list of finite numbers, of this length where one is given."""
    if not isinstance(values, (list, tuple)) or (count is not None and len(values) != count):
        return False
    return all(map(is_finite, values))


def refuse_other_forms(boxes: NDArray[np.float64], sizes: NDArray[np.float64], name: str) -> None:
    """Refuse boxes that are fractions of the picture, or two corners.

    Args:
        boxes: (N, 4), all boxes of a file, or of a call.
        sizes: (N, 2) width and height of the picture of each, nan where unknown.
        name: What they are called in the message.

    Raises:
        PoseDataError: The guess is named. No box has a size. Fractions: in nine of ten boxes no number is above 1.
            Corners: read so, nine of ten boxes are right and inside their picture, while as x, y, width, height a fifth
            of them reach far beyond it; where no size is known, this is not looked for.
    """
    sized = (boxes[:, 2:] > 0).all(axis=1)
    if len(boxes) and not sized.any():
        raise PoseDataError(
            f"{name}: none of {len(boxes)} boxes has a size ({_shown(boxes[0, :2], boxes[0, 2:])}): x, y, width, "
            "height in pixels is expected, the last two above 0"
        )
    boxes, sizes = boxes[sized], sizes[sized]
    if not len(boxes):
        return
    small = boxes.max(axis=1) <= 1
    if small.mean() >= MOST:
        many = f"{len(boxes)}" if small.all() else f"{int(small.sum())} of {len(boxes)}"
        raise PoseDataError(
            f"{name}: none of the numbers of {many} boxes is above 1, so they look like fractions of "
            "the picture, as YOLO writes them: x, y, width, height in pixels is expected (multiply by the picture's "
            "width and height; if x and y are the middle, take half the width and height off)"
        )
    known = ~np.isnan(sizes).any(axis=1)
    if not known.any():
        return
    first, second, size = boxes[known, :2], boxes[known, 2:], sizes[known]
    side = second - first
    as_corners = np.all((first >= -_FAR * side) & (side > 0) & (second <= size + _FAR * side + 1), axis=1)
    far = np.any(first + second > size + _FAR * second, axis=1)
    if as_corners.mean() >= MOST and far.mean() >= _MANY:
        raise PoseDataError(
            f"{name}: {int(far.sum())} of {len(far)} boxes reach far beyond their picture, and "
            f"{int(as_corners.sum())} fit as two corners, so they look like left, top, right, bottom "
            f"({_shown(first[far][0], second[far][0])} in a picture of {_size(size[far][0])}): x, y, width, height is "
            "expected (width = right - left, height = bottom - top)"
        )


def refuse_another_size(boxes: NDArray[np.float64], sizes: NDArray[np.float64], name: str) -> None:
    """Refuse boxes of pictures of another size: of half of them the middle is outside.

    Args:
        boxes: As for `refuse_other_forms`.
        sizes: As for `refuse_other_forms`.
        name: What they are called in the message.

    Raises:
        PoseDataError: The guess is named.
    """
    middle = boxes[:, :2] + boxes[:, 2:] / 2
    with np.errstate(invalid="ignore"):
        beyond = np.any((middle < 0) | (middle > sizes), axis=1)
    known = ~np.isnan(sizes).any(axis=1)
    if known.any() and beyond[known].mean() >= 0.5:
        index = int(np.flatnonzero(beyond & known)[0])
        raise PoseDataError(
            f"{name}: the middle of {int(beyond[known].sum())} of {int(known.sum())} boxes is outside their picture "
            f"({_shown(boxes[index, :2], boxes[index, 2:])} in one of {_size(sizes[index])}), so they look like boxes "
            "in pictures of another size, or of another data set: pixels of the pictures as the annotation file "
            "lists them are expected"
        )


def touches(boxes: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) whether some of a box is inside its picture; (N, 4) boxes and (N, 2) sizes, nan where unknown."""
    border = np.where(np.isnan(sizes), np.inf, sizes)
    inside: NDArray[np.bool_] = np.all((boxes[:, :2] < border) & (boxes[:, :2] + boxes[:, 2:] > 0), axis=1)
    return inside


def _shown(first: NDArray[np.float64], second: NDArray[np.float64]) -> str:
    return ", ".join(f"{value:g}" for value in (*first, *second))


def _size(size: NDArray[np.float64]) -> str:
    return f"{size[0]:g} x {size[1]:g} pixels"
