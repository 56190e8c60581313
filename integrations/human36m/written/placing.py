"""Lifted poses in the world of the calibrated camera that a command is told."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from ..data.calibration.file import read_calibration
from ..data.cameras import Camera
from ..errors import LiftingDataError
from .outputs import Outputs, Seen
from .world import place_in_world

_logger = logging.getLogger(__name__)


def read_camera(outputs: Outputs, size: tuple[float, float], called: str | None = None) -> Camera | None:
    """The camera of ``outputs.camera`` that took pictures of a size; ``None`` where no calibration is given.

    Args:
        outputs: What the options say.
        size: Width and height of the keypoints' picture.
        called: The keypoints' name, which is the camera's where the calibration has one of that name and none is given.

    Raises:
        LiftingDataError: See :func:`read_calibration`; it has several cameras and none is named, none of that name, or
            one of other pictures.
    """
    if outputs.camera is None:
        return None
    path, name = outputs.camera, outputs.camera_name
    cameras = read_calibration(path, outputs.camera_unit, (int(size[0]), int(size[1])))
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
    return place_in_world(poses, seen.keypoints, seen.camera, checked=outputs.camera_unit is None)[0]
