"""Poses relative to the root, in the world of the calibrated camera that saw them."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from ..data.calibration.file import read_calibration
from ..data.cameras import Camera
from ..data.skeleton import JOINTS
from ..errors import LiftingDataError
from .outputs import Outputs, Seen
from .upright import check_body

_logger = logging.getLogger(__name__)

_AWAY, _NEAR_ORIGIN = 20.0, 0.002
"""How many times as far as the person a camera may be from the world's origin, and how near it, if not on it."""
_UNITS = {"mm": 0.001, "cm": 0.01}
_FAR = 0.25
"""Of the person's size in the picture, which poses at their best place may be off: more is another clip or camera."""


def place_in_world(
    poses: NDArray[np.floating], pixels: NDArray[np.floating], camera: Camera, *, checked: bool = True
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Where in the world a lifted person is: each pose at the place where the camera sees it on its 2D keypoints.

    The place is the least squares solution of the equations of projection, linear in it. Depth follows the size of the
    poses: a person taken for 5 % too tall is 5 % too far away. Nothing is smoothed.

    Args:
        poses: (T, 17, 3), metres in camera axes, relative to the root, of the person's true size (``person_height``).
        pixels: (T, 17, 2), where the joints were seen, pixels of the picture as it is.
        camera: Who saw them.
        checked: Refuse a world whose unit cannot be metres, going by how far the camera is from its origin; otherwise
            that is logged, as where worlds are large.

    Returns:
        (T, 17, 3), metres in world axes; and (T, 17), pixels between the keypoints and the poses as the camera sees
        them there.

    Raises:
        LiftingDataError: Poses or pixels of another shape or not finite; keypoints that the lens cannot show; a place
            behind the camera, or poses that are seen nowhere near the keypoints; a camera that is as far from the
            origin as if its position were in another unit.

    Example:
        >>> camera = read_calibration("cameras.yml")["front"]
        >>> world, error = place_in_world(lift(model, inputs, settings, person_height=1.75), pixels, camera)
    """
    check_body(poses, "the poses")
    if pixels.shape != (len(poses), len(JOINTS), 2) or not np.isfinite(pixels).all():
        raise LiftingDataError(
            f"pixels of shape {pixels.shape} for {len(poses)} poses: finite ({len(poses)}, {len(JOINTS)}, 2), the "
            "joints of the poses, is expected"
        )
    rays = camera.undistort(pixels)
    if not np.isfinite(rays).all():
        raise LiftingDataError(
            f"camera {camera.name}: {int(np.isnan(rays).any(axis=-1).sum())} keypoints are where its lens shows "
            "nothing: is the calibration another camera's, or of pictures of another size?"
        )
    points = poses.astype(np.float64)
    # x of a ray is (x of the point + of the place) / (its depth + the place's), y as well: linear in the place.
    rows = np.zeros((*rays.shape, 3))
    rows[..., 0, 0] = rows[..., 1, 1] = 1
    rows[..., 2] = -rays
    known = rays * points[..., 2:] - points[..., :2]
    matrix, right = rows.reshape(len(points), -1, 3), known.reshape(len(points), -1, 1)
    turned = np.swapaxes(matrix, 1, 2)
    place = np.linalg.solve(turned @ matrix, turned @ right)[..., 0]
    moved = points + place[:, None]
    behind = (moved[..., 2] <= 0).any(axis=1)
    if behind.any():
        raise LiftingDataError(
            f"camera {camera.name}: in {int(behind.sum())} of {len(poses)} frames, the first is frame "
            f"{int(behind.argmax())}, the person would be behind it: are poses and keypoints of one clip?"
        )
    away = float(np.median(np.linalg.norm(place, axis=-1)))
    unlikely = _unlikely_unit(camera, away)
    if unlikely and checked:
        raise LiftingDataError(unlikely)
    if unlikely:
        _logger.warning("%s", unlikely)
    _warn_of_large_unit(camera, away)
    error = np.linalg.norm(camera.project(moved) - pixels, axis=-1)
    size = np.ptp(pixels, axis=1).max(axis=1)
    off = float(np.median(error.mean(axis=1) / size.clip(1)))
    if off > _FAR:
        raise LiftingDataError(
            f"camera {camera.name}: wherever the person is put, the poses are {100 * off:.0f} % of the person's size "
            "in the picture off the keypoints: is the calibration another camera's, or are these the poses of others?"
        )
    _logger.info("camera %s: poses are seen %.1f pixels (median) from their keypoints", camera.name, np.median(error))
    return camera.to_world(moved).astype(np.float32), error


def _unlikely_unit(camera: Camera, away: float) -> str:
    """Why the camera's position cannot be in metres, where the person is so far away from it; empty if it can."""
    distance = float(np.linalg.norm(camera.position))
    told = (
        f"camera {camera.name} is {distance:.4g} m from the origin of its world, and the person {away:.3g} m from the "
        "camera"
    )
    if distance > _AWAY * away:
        unit = min(_UNITS, key=lambda unit: abs(np.log(distance * _UNITS[unit] / away)))
        return (
            f"{told}: is the calibration in {unit}? Say so (--unit {unit}), or --unit m, if it is in "
            "metres all the same"
        )
    return ""


def _warn_of_large_unit(camera: Camera, away: float) -> None:
    """The other way round cameras may be beside each other, one of them at the origin, so that nothing is refused."""
    distance = float(np.linalg.norm(camera.position))
    if 0 < distance < _NEAR_ORIGIN * away:
        _logger.warning(
            "camera %s is %.2g m from the origin of its world, and the person %.3g m from the camera: is the "
            "calibration in a larger unit than was said?",
            camera.name,
            distance,
            away,
        )


def read_camera(outputs: Outputs, size: tuple[float, float], called: str | None = None) -> Camera | None:
    """The camera of ``outputs.calibration`` that took pictures of a size; ``None`` where no calibration is given.

    Args:
        outputs: What the options say.
        size: Width and height of the keypoints' picture.
        called: The keypoints' name, which is the camera's where the calibration has one of that name and none is given.

    Raises:
        LiftingDataError: See :func:`read_calibration`; it has several cameras and none is named, none of that name, or
            one of other pictures.
    """
    if not outputs.calibration:
        return None
    path, name = ", ".join(map(str, outputs.calibration)), outputs.camera_name
    cameras = read_calibration(outputs.calibration, outputs.unit, (int(size[0]), int(size[1])))
    if name is None and len(cameras) == 1:
        name = next(iter(cameras))
    elif name is None and called in cameras:
        name = called
        _logger.info("camera %s of %s is taken, as the keypoints are called", name, path)
    if name is None:
        raise LiftingDataError(f"{path} has the cameras {', '.join(cameras)}: say which it is, --camera-name")
    if name not in cameras:
        raise LiftingDataError(f"{path} has no camera {name}; it has {', '.join(cameras)}")
    if called in cameras and called != name:
        _logger.warning(
            "the keypoints are called as camera %s of %s, and are taken for camera %s's", called, path, name
        )
    camera = cameras[name]
    if camera.size != tuple(size):
        raise LiftingDataError(
            f"{path}: camera {camera.name} was calibrated on pictures of {camera.size[0]} x {camera.size[1]}, the "
            f"keypoints' are {size[0]:g} x {size[1]:g}: another camera, or pictures that were scaled or cut?"
        )
    return camera


def in_world(poses: NDArray[np.float32], seen: Seen, outputs: Outputs) -> NDArray[np.float32]:
    """Lifted poses in the world of the camera that saw them; where there is none, as they are.

    The unit of a calibration that the user did not say is checked; one that was said is believed, with a warning.

    Raises:
        LiftingDataError: See :func:`place_in_world`.
    """
    if seen.camera is None:
        return poses
    return place_in_world(poses, seen.keypoints, seen.camera, checked=outputs.unit is None)[0]
