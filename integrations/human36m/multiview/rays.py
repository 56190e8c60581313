"""Where in the world a patch of a view looks: points on the rays through the middle of each patch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.cameras import Camera
from ..errors import LiftingDataError
from .crops import undo_crop

Array = NDArray[np.float64]


def patch_rays(camera: Camera, grid: tuple[int, int], patch: tuple[int, int], crop: Array | None = None) -> Array:
    """A point in the world on the ray of each patch, one metre in front of the camera along its axis.

    Human3.6M's distortion, a pixel or two, is not undone, as in the authors' code; a ``lens`` is. Pixels have their
    centre at whole numbers, so the middle of a patch of 16 pixels is at 7.5.

    Args:
        camera: Who looks.
        grid: Rows and columns of patches.
        patch: Height and width of a patch in pixels of the view.
        crop: (2, 3), the affine map from pixels (x, y, 1) of the camera's picture to those of the view; default, the
            view is the picture.

    Returns:
        (rows * columns, 3), metres, row by row. Together with ``camera.position`` this is what the model takes.

    Raises:
        LiftingDataError: A grid or patch that is no pair of whole numbers above 0, a crop of another shape, or one that
            cannot be undone; a patch where the camera's lens sees nothing.

    Example:
        >>> patch_rays(camera, grid=(16, 16), patch=(16, 16)).shape
        (256, 3)

    Source: PPT (ECCV 2022), section 3.4: ``R^T [(u - cx) / fx, (v - cy) / fy, 1] + T``.
    """
    for name, pair in (("grid", grid), ("patch", patch)):
        whole = isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(side, int) for side in pair)
        if not whole or min(pair) < 1:
            raise LiftingDataError(
                f"{name}={pair!r}: two whole numbers above 0 are expected, as config.grid (rows, columns) and "
                "config.patch_pixels (height, width)"
            )
    rows, columns = ((np.arange(count) + 0.5) * size - 0.5 for count, size in zip(grid, patch, strict=True))
    v, u = (each.reshape(-1) for each in np.meshgrid(rows, columns, indexing="ij"))
    pixels = np.stack([u, v], axis=-1)
    if crop is not None:
        pixels = undo_crop(pixels, crop)
    plane = camera.undistort(pixels) if camera.lens else (pixels - camera.centre) / camera.focal
    if not np.isfinite(plane).all():
        raise LiftingDataError(
            f"camera {camera.name}: its lens sees nothing at pixel {pixels[np.isnan(plane[:, 0])][0].tolist()}: is the "
            "crop of another picture, or are the coefficients of distortion another model's?"
        )
    ahead = np.concatenate([plane, np.ones((len(plane), 1))], axis=-1)
    points: Array = ahead @ camera.rotation.T + camera.position
    return points


def check_cameras(cameras: Sequence[Camera]) -> Array:
    """Refuse cameras that do not look at one place, as those around a person do.

    The place is the point nearest to all their axes. Cameras whose rotation or position is in another convention, such
    as OpenCV's ``R`` and ``t``, look past each other.

    Args:
        cameras: Two or more.

    Returns:
        (3,), where they look, metres in the world.

    Raises:
        LiftingDataError: Fewer than two; or the place is behind one of them or outside of its picture.

    Example:
        >>> check_cameras(ring_of_cameras(np.array([0.0, 1.0, 0.0]), 4)).round(3).tolist()
        [0.0, 1.0, 0.0]
    """
    if len(cameras) < 2:
        raise LiftingDataError(f"{len(cameras)} cameras: two or more are needed to tell whether they look at one place")
    across = [np.eye(3) - np.outer(each.rotation[:, 2], each.rotation[:, 2]) for each in cameras]
    held = sum(one @ each.position for one, each in zip(across, cameras, strict=True))
    place: Array = np.linalg.lstsq(sum(across, np.zeros((3, 3))), held, rcond=1e-6)[0].astype(np.float64)
    for camera in cameras:
        x, y, depth = camera.to_camera(place)
        pixel = camera.focal * [x, y] / depth + camera.centre if depth > 0 else np.full(2, np.inf)
        if not ((pixel >= 0) & (pixel <= camera.size)).all():
            raise LiftingDataError(
                f"camera {camera.name} does not look at where the {len(cameras)} cameras' axes meet "
                f"({', '.join(f'{value:.2f}' for value in place)}): rotation is from camera to world axes and position "
                "where the camera is, in metres; Camera.from_opencv takes OpenCV's R and t"
            )
    return place


def ray_directions(rays: Tensor, centers: Tensor) -> Tensor:
    """Unit vectors from cameras to points.

    Args:
        rays: (B, N, 3), points in the world.
        centers: (B, 3), the cameras' positions in the same axes and unit.

    Returns:
        (B, N, 3), each of length 1; 0 where a point is the camera's own position.
    """
    return torch.nn.functional.normalize(rays - centers[:, None], dim=-1)
