"""A person cut out of a camera's picture as a view of the model, and joints of its heatmaps in that picture again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.calibration.checks import finite_numbers
from ..errors import LiftingDataError

Array = NDArray[np.float64]

PADDING = 1.25
"""A view is the box times this, so that joints near its border stay inside."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def view_matrix(box: Sequence[float], size: tuple[int, int] = (256, 256), padding: float = PADDING) -> Array:
    """The affine map (2, 3) from a picture's pixels (x, y, 1) to those of a view that is a box of it.

    The box is padded, and widened to the view's aspect; its middle becomes the view's.

    Args:
        box: x, y, width, height in pixels of the picture.
        size: Height and width of the view.
        padding: By which the box is enlarged.

    Raises:
        LiftingDataError: No four numbers, or a side, a size or a padding that is not above 0.

    Example:
        >>> view_matrix((100, 50, 200, 400), (256, 256), padding=1.0).tolist()
        [[0.64, 0.0, 0.0], [0.0, 0.64, -32.0]]

    Source: the crops of PPT's and HRNet's code, without rotation.
    """
    x, y, width, height = finite_numbers(box, (4,), "box").tolist()
    if not (min(width, height, padding, *size) > 0):
        raise LiftingDataError(
            f"box={list(box)}, size={size}, padding={padding}: a width, a height and a padding above 0 are expected"
        )
    factor = min(size[1] / width, size[0] / height) / padding
    middle = np.array([x + width / 2, y + height / 2])
    moved = np.array([size[1], size[0]]) / 2 - factor * middle
    return np.concatenate([factor * np.eye(2), moved[:, None]], axis=1)


def cut_view(picture: NDArray[np.uint8], matrix: Array, size: tuple[int, int] = (256, 256)) -> Tensor:
    """A view of a picture as the model takes it; black where the picture ends.

    Args:
        picture: (H, W, 3), RGB from 0 to 255.
        matrix: See :func:`view_matrix`.
        size: Height and width of the view.

    Returns:
        (3, h, w), normalised (:func:`normalize_view`).

    Raises:
        LiftingDataError: Another shape or type, or a matrix that cannot be undone.
    """
    if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        told = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise LiftingDataError(f"picture: {told}: an array of uint8 (H, W, 3), RGB, is expected")
    rows, columns = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")
    at = undo_crop(np.stack([columns, rows], axis=-1).astype(np.float64), matrix)
    sides = np.maximum(np.array([picture.shape[1], picture.shape[0]]) - 1, 1)
    grid = torch.from_numpy(2 * at / sides - 1).float()[None]
    pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).float()[None]  # BGR turned is a view
    return normalize_view(torch.nn.functional.grid_sample(pixels, grid, align_corners=True)[0])


def normalize_view(pixels: Tensor) -> Tensor:
    """RGB (..., 3, H, W) from 0 to 255 as the model takes it: by ImageNet's mean and deviation."""
    mean, deviation = (pixels.new_tensor(each, dtype=torch.float32)[:, None, None] for each in (MEAN, STD))
    return (pixels.float() / 255 - mean) / deviation


def heatmap_to_picture(positions: Tensor, matrix: Array, stride: float = 4.0) -> Array:
    """Positions in a view's heatmaps as pixels of the picture that the view was cut from.

    Args:
        positions: (..., 2), x and y in heatmap pixels (`decode_joints`).
        matrix: That cut the view, see :func:`view_matrix`.
        stride: Pixels of the view in one of the heatmap.

    Returns:
        (..., 2), pixels.

    Raises:
        LiftingDataError: A matrix that cannot be undone.

    Example:
        >>> heatmap_to_picture(torch.tensor([[32.0, 32.0]]), view_matrix((100, 50, 200, 400))).tolist()
        [[200.0, 250.0]]
    """
    return undo_crop(positions.detach().cpu().numpy().astype(np.float64) * stride, matrix)


def undo_crop(pixels: Array, crop: Array) -> Array:
    """Pixels (..., 2) of a view as those of the picture it was cut from.

    Args:
        pixels: Of the view.
        crop: (2, 3), from pixels (x, y, 1) of the picture to those of the view.

    Raises:
        LiftingDataError: A crop of another shape, or one that cannot be undone.
    """
    crop = np.asarray(crop, dtype=np.float64)
    if crop.shape != (2, 3) or not np.isfinite(crop).all():
        raise LiftingDataError(f"a crop of shape {crop.shape}: (2, 3) finite numbers, an affine map, are expected")
    if abs(np.linalg.det(crop[:, :2])) < 1e-12:
        raise LiftingDataError(f"the crop {crop.tolist()} cannot be undone: it maps the picture to a line")
    undone: Array = (pixels - crop[:, 2]) @ np.linalg.inv(crop[:, :2]).T
    return undone
