"""Cameras: read from a file or placed around a person, and what they see.

A file of cameras is JSON, subject -> list of cameras in the order of the 2D file's, each with the fields of
VideoPose3D's table: ``orientation`` (unit quaternion w, x, y, z, from camera to world axes), ``translation``
(millimetres), ``focal_length``, ``center``, ``radial_distortion`` (3), ``tangential_distortion`` (2), ``res_w`` and
``res_h`` (pixels), ``id``. Human3.6M's licence covers its cameras too, so no table comes with this library; beside a
checkout of VideoPose3D this writes the file from its ``common/h36m_dataset.py``:

    import json
    from common.h36m_dataset import h36m_cameras_extrinsic_params as outer, h36m_cameras_intrinsic_params as inner
    table = {s: [{**i, **o} for i, o in zip(inner, cameras)] for s, cameras in outer.items()}
    json.dump(table, open("cameras.json", "w"))
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cycledistill.recipes.reading.texts import read_json

from ..errors import LiftingDataError

Array = NDArray[np.float64]

# field -> how many numbers
_FIELDS = {"orientation": 4, "translation": 3, "focal_length": 2, "center": 2, "radial_distortion": 3}
_FIELDS["tangential_distortion"] = 2


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with distortion. Camera axes: x to the right, y down, z forward.

    Args:
        name: For messages.
        rotation: (3, 3), from camera to world axes.
        position: (3,), metres in the world.
        focal: (2,), pixels.
        centre: (2,), pixels.
        size: Width and height in pixels.
        radial: Three coefficients of radial distortion.
        tangential: Two coefficients of tangential distortion.
    """

    name: str
    rotation: Array
    position: Array
    focal: Array
    centre: Array
    size: tuple[int, int]
    radial: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tangential: tuple[float, float] = (0.0, 0.0)

    def to_camera(self, world: NDArray[np.floating]) -> Array:
        """Points (..., 3) in metres, from world axes to this camera's."""
        moved: Array = (world.astype(np.float64) - self.position) @ self.rotation
        return moved

    def project(self, points: Array) -> Array:
        """Pixels (..., 2) of points (..., 3) in camera axes.

        Rays further than 45 degrees off the axis are drawn in to there, as in VideoPose3D. The distortion is of its
        form too, which is not OpenCV's: with r2 = x^2 + y^2 the point (x, y) is scaled by
        1 + k1 r2 + k2 r2^2 + k3 r2^3 + p1 x + p2 y and moved by (p1, p2) r2. Tangential coefficients that were
        calibrated with OpenCV do not fit.

        Source: Human3.6M's camera model, in the form of VideoPose3D's ``project_to_2d``.
        """
        plane = (points[..., :2] / points[..., 2:]).clip(-1, 1)
        square = (plane**2).sum(axis=-1, keepdims=True)
        powers = np.concatenate([square, square**2, square**3], axis=-1)
        radial = 1 + (np.array(self.radial) * powers).sum(axis=-1, keepdims=True)
        tangential = (np.array(self.tangential) * plane).sum(axis=-1, keepdims=True)
        pixels: Array = self.focal * (plane * (radial + tangential) + np.array(self.tangential) * square) + self.centre
        return pixels


def normalize_screen(pixels: NDArray[np.floating], width: float, height: float) -> NDArray[np.float32]:
    """Pixels (..., 2) to the models' input: x in [-1, 1], y in the same unit, (0, 0) the middle of the picture.

    Example:
        >>> normalize_screen(np.array([[500.0, 501.0]]), 1000, 1002).tolist()
        [[0.0, 0.0]]

    Source: VideoPose3D: ``x / w * 2 - 1`` and ``y / w * 2 - h / w``.
    """
    if not (width > 0 and height > 0):
        raise LiftingDataError(f"a picture of {width} x {height} pixels: width and height must be above 0")
    scaled = pixels.astype(np.float64) / width * 2 - np.array([1.0, height / width])
    return scaled.astype(np.float32)


def ring_of_cameras(
    centre: Array,
    count: int = 4,
    *,
    distance: float = 5.2,
    height: float = 0.7,
    first_angle: float = 0.0,
    focal: float = 1145.0,
    size: tuple[int, int] = (1000, 1000),
) -> list[Camera]:
    """Cameras on a circle around a point, looking at it; the world's y axis points up.

    Args:
        centre: (3,), metres.
        count: How many, evenly spread.
        distance: Horizontal metres from the point.
        height: Metres above it.
        first_angle: Angle of the first, radians.
        focal: Pixels; Human3.6M's cameras have about 1145.
        size: Width and height in pixels.
    """
    cameras = []
    for number in range(count):
        angle = first_angle + 2 * np.pi * number / count
        away = np.array([distance * np.cos(angle), height, distance * np.sin(angle)])
        forward = -away / np.linalg.norm(away)
        right = np.cross(forward, [0.0, 1.0, 0.0])
        right /= np.linalg.norm(right)
        axes = np.stack([right, np.cross(forward, right), forward], axis=1)
        middle = np.array(size, dtype=np.float64) / 2
        cameras.append(Camera(str(number), axes, centre + away, np.full(2, focal), middle, size))
    return cameras


def read_cameras(path: str | Path) -> dict[str, list[Camera]]:
    """Cameras by subject, from a file as this module's text describes it; subjects without parameters are left out.

    Raises:
        LiftingDataError: Not there, not JSON, or of another form; the camera and its field are named.
    """
    table = read_json(path, LiftingDataError)
    lists = table.values() if isinstance(table, dict) else [None]
    if not all(
        isinstance(each, list) and all(isinstance(entry, (dict, type(None))) for entry in each) for each in lists
    ):
        raise LiftingDataError(f"the camera file {path}: subject -> list of cameras, each an object, is expected")
    found = {}
    for subject, entries in table.items():
        known = [entry for entry in entries if entry]
        if known and any("orientation" in entry for entry in known):
            found[subject] = [_camera(entry, f"{path}: {subject}, camera {i}") for i, entry in enumerate(known)]
    if not found:
        raise LiftingDataError(f"the camera file {path} has no camera with an orientation")
    return found


def _is_list_of_cameras(value: object) -> bool:
    return isinstance(value, list) and all(entry is None or isinstance(entry, dict) for entry in value)


def _camera(entry: dict[str, Any], where: str) -> Camera:
    values = {}
    for name, count in _FIELDS.items():
        given = entry.get(name, [0.0] * count if name.endswith("distortion") else None)
        try:
            values[name] = np.array(given, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            values[name] = np.empty(0)
        if values[name].shape != (count,) or not np.isfinite(values[name]).all():
            raise LiftingDataError(f"{where}: {name}={given!r:.200}, {count} numbers are expected")
    width, height = entry.get("res_w"), entry.get("res_h")
    if not all(isinstance(side, int) and 0 < side < 2**31 for side in (width, height)):
        raise LiftingDataError(f"{where}: res_w={width!r:.40}, res_h={height!r:.40}, pixels are expected")
    length = float(np.linalg.norm(values["orientation"]))
    if abs(length - 1) > 1e-3:
        raise LiftingDataError(f"{where}: orientation has length {length:.4f}, a unit quaternion is expected")
    return Camera(
        str(entry.get("id", where.rpartition(" ")[2])),
        _matrix(values["orientation"] / length),
        values["translation"] / 1000,
        values["focal_length"],
        values["center"],
        (int(width), int(height)),  # type: ignore[arg-type]
        tuple(values["radial_distortion"].tolist()),
        tuple(values["tangential_distortion"].tolist()),
    )


def _matrix(quaternion: Array) -> Array:
    w, x, y, z = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
