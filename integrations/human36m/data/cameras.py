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
from .calibration.checks import check_rotation, finite_numbers
from .calibration.lens import Lens, invert

Array = NDArray[np.float64]

# field -> how many numbers
_FIELDS = {"orientation": 4, "translation": 3, "focal_length": 2, "center": 2, "radial_distortion": 3}
_FIELDS["tangential_distortion"] = 2


_SHAPES = {
    "rotation": (3, 3), "position": (3,), "focal": (2,), "centre": (2,), "size": (2,), "radial": (3,),
    "tangential": (2,),
}  # fmt: skip
_ARRAYS = ("rotation", "position", "focal", "centre")


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
        lens: Distortion as OpenCV calibrates it, instead of the two before, which are of Human3.6M's form.

    Arrays may be given as lists or tensors. OpenCV's ``R`` and ``t`` are neither ``rotation`` nor ``position``: see
    :meth:`from_opencv`.

    Raises:
        LiftingDataError: Another shape, numbers that are not finite, a matrix that is no rotation, a focal length or a
            size that is not above 0; or distortion of both forms.
    """

    name: str
    rotation: Array
    position: Array
    focal: Array
    centre: Array
    size: tuple[int, int]
    radial: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tangential: tuple[float, float] = (0.0, 0.0)
    lens: Lens | None = None

    def __post_init__(self) -> None:
        for name, shape in _SHAPES.items():
            value = finite_numbers(getattr(self, name), shape, f"camera {self.name}: {name}")
            object.__setattr__(self, name, value if name in _ARRAYS else tuple(value.tolist()))
        check_rotation(self.rotation, f"camera {self.name}: rotation")
        if not (self.focal > 0).all():
            raise LiftingDataError(
                f"camera {self.name}: focal={self.focal.tolist()}: pixels, above 0, are expected; a flipped axis "
                "belongs into the rotation"
            )
        size = tuple(int(side) for side in self.size)
        if size != self.size or min(size) < 1:
            raise LiftingDataError(
                f"camera {self.name}: size={self.size}: width and height in whole pixels above 0 are expected"
            )
        object.__setattr__(self, "size", size)
        if self.lens and any((*self.radial, *self.tangential)):
            raise LiftingDataError(f"camera {self.name}: a lens, or radial and tangential: one of them is expected")

    @classmethod
    def from_opencv(
        cls,
        name: str,
        R: object,
        t: object,
        K: object,
        size: tuple[int, int],
        distortion: object = (),
        model: str = "pinhole",
    ) -> Camera:
        """A camera from OpenCV's calibration, in which a point of the world is at ``R @ point + t`` in camera axes.

        Args:
            name: For messages.
            R: (3, 3), from world to camera axes (``cv2.Rodrigues(rvec)[0]`` makes one).
            t: (3,) or (3, 1), metres: where the world's origin is in camera axes.
            K: (3, 3), the camera matrix, pixels; without skew.
            size: Width and height in pixels.
            distortion: OpenCV's coefficients, see `Lens`; an array of any shape. Default: none, or undone already.
            model: ``"pinhole"``, or ``"fisheye"`` for a calibration by ``cv2.fisheye``.

        Returns:
            The camera.

        Raises:
            LiftingDataError: As for the class and for `Lens`; or a ``K`` that is no camera matrix.

        Example:
            >>> R, t, K = np.eye(3), [0, 0, 4], [[900, 0, 320], [0, 900, 240], [0, 0, 1]]
            >>> Camera.from_opencv("front", R, t, K, (640, 480)).position.tolist()
            [0.0, 0.0, -4.0]
        """
        where = f"camera {name}"
        rotation, inner = finite_numbers(R, (3, 3), f"{where}: R"), finite_numbers(K, (3, 3), f"{where}: K")
        check_rotation(rotation, f"{where}: R")
        moved = finite_numbers(t, (3,), f"{where}: t", flat=True)
        if inner[0, 1] or inner[1, 0] or inner[2].tolist() != [0, 0, 1]:
            raise LiftingDataError(
                f"{where}: K={inner.tolist()}: [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] is expected, pixels"
            )
        numbers = finite_numbers(distortion, (-1,), f"{where}: distortion", flat=True)
        try:
            lens = Lens(model, tuple(numbers.tolist())) if len(numbers) or model != "pinhole" else None
        except LiftingDataError as error:
            raise LiftingDataError(f"{where}: {error}") from None
        return cls(name, rotation.T, -rotation.T @ moved, inner.diagonal()[:2], inner[:2, 2], size, lens=lens)

    def to_camera(self, world: NDArray[np.floating]) -> Array:
        """Points (..., 3) in metres, from world axes to this camera's."""
        moved: Array = (world.astype(np.float64) - self.position) @ self.rotation
        return moved

    def to_world(self, points: NDArray[np.floating]) -> Array:
        """Points (..., 3) in metres, from this camera's axes to the world's."""
        turned: Array = points.astype(np.float64) @ self.rotation.T + self.position
        return turned

    def project(self, points: Array) -> Array:
        """Pixels (..., 2) of points (..., 3) in camera axes.

        With a ``lens`` as ``cv2.projectPoints`` or ``cv2.fisheye.projectPoints``. Without one, rays further than 45
        degrees off the axis are drawn in to there, as in VideoPose3D, and the distortion is of its form too, which is
        not OpenCV's: with r2 = x^2 + y^2 the point (x, y) is scaled by 1 + k1 r2 + k2 r2^2 + k3 r2^3 + p1 x + p2 y and
        moved by (p1, p2) r2. Tangential coefficients that were calibrated with OpenCV do not fit.

        Raises:
            LiftingDataError: A point that is not in front of the camera, which it does not see.

        Source: Human3.6M's camera model, in the form of VideoPose3D's ``project_to_2d``.
        """
        behind = int((points[..., 2] <= 0).sum())
        if behind:
            raise LiftingDataError(
                f"camera {self.name}: {behind} of {points[..., 2].size} points are not in front of it, so it does not "
                "see them: is it another recording's, or are its rotation and position OpenCV's R and t "
                "(Camera.from_opencv takes those)?"
            )
        plane = points[..., :2] / points[..., 2:]
        distorted = self.lens.distort(plane) if self.lens else self._distort(plane.clip(-1, 1))
        pixels: Array = self.focal * distorted + self.centre
        return pixels

    def undistort(self, pixels: NDArray[np.floating]) -> Array:
        """Pixels (..., 2) as points (x, y) of the rays (x, y, 1) in camera axes on which they are seen.

        Returns:
            (..., 2); NaN where the lens sees nothing, and where a pixel is NaN.

        Example:
            >>> camera.undistort(camera.project(np.array([[0.3, -0.2, 1.0]]))).round(6).tolist()
            [[0.3, -0.2]]
        """
        plane = (pixels.astype(np.float64) - self.centre) / self.focal
        if self.lens:
            return self.lens.undistort(plane)
        return invert(self._distort, plane) if any((*self.radial, *self.tangential)) else plane

    def _distort(self, plane: Array) -> Array:
        square = (plane**2).sum(axis=-1, keepdims=True)
        powers = np.concatenate([square, square**2, square**3], axis=-1)
        radial = 1 + (np.array(self.radial) * powers).sum(axis=-1, keepdims=True)
        tangential = (np.array(self.tangential) * plane).sum(axis=-1, keepdims=True)
        return plane * (radial + tangential) + np.array(self.tangential) * square


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


def screen_to_pixels(normal: NDArray[np.floating], width: float, height: float) -> NDArray[np.float64]:
    """The models' input (..., 2) as pixels of the picture: what :func:`normalize_screen` undoes.

    Example:
        >>> screen_to_pixels(np.array([[0.0, 0.0]]), 1000, 1002).tolist()
        [[500.0, 501.0]]
    """
    pixels: NDArray[np.float64] = (normal.astype(np.float64) + np.array([1.0, height / width])) * width / 2
    return pixels


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
    return {subject: [each for each in cameras if each] for subject, cameras in read_camera_table(path).items()}


def read_camera_table(path: str | Path) -> dict[str, list[Camera | None]]:
    """As :func:`read_cameras`, with ``None`` where a camera's place in the list is empty (``null`` or ``{}``).

    Raises:
        LiftingDataError: As :func:`read_cameras`.
    """
    table = read_json(path, LiftingDataError)
    lists = table.values() if isinstance(table, dict) else [None]
    if not all(
        isinstance(each, list) and all(isinstance(entry, (dict, type(None))) for entry in each) for each in lists
    ):
        raise LiftingDataError(f"the camera file {path}: subject -> list of cameras, each an object, is expected")
    found = {}
    for subject, entries in table.items():
        if any("orientation" in entry for entry in entries if entry):
            places = [(entry, f"{path}: {subject}, camera {i}") for i, entry in enumerate(entries)]
            found[subject] = [_camera(entry, where) if entry else None for entry, where in places]
    if not found:
        raise LiftingDataError(f"the camera file {path} has no camera with an orientation")
    return found


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
    try:
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
    except LiftingDataError as error:
        raise LiftingDataError(f"{where}: {error}") from None


def _matrix(quaternion: Array) -> Array:
    w, x, y, z = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
