"""OpenCV's two models of a lens: where it puts a point that a pinhole camera would see elsewhere, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import LiftingDataError

Array = NDArray[np.float64]

MODELS = {"pinhole": (0, 4, 5, 8, 12, 14), "fisheye": (4,)}
"""Model -> how many coefficients it may have: those of ``cv2.projectPoints`` and of ``cv2.fisheye.projectPoints``."""

_STEPS, _NEAR, _STEP = 50, 1e-9, 1e-6


@dataclass(frozen=True)
class Lens:
    """A lens as OpenCV calibrates it.

    Args:
        model: ``"pinhole"`` (``cv2.calibrateCamera``: radial, tangential, rational, thin prism, tilted sensor) or
            ``"fisheye"`` (``cv2.fisheye.calibrate``).
        coefficients: In OpenCV's order, k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4, tx, ty, of which there may be
            4, 5, 8, 12 or 14; or k1, k2, k3, k4 of a fisheye.

    Raises:
        LiftingDataError: Another model, or another number of coefficients.

    Example:
        >>> Lens(coefficients=(-0.2, 0.05, 0.0, 0.0)).distort(np.array([[0.5, 0.0]])).round(4).tolist()
        [[0.4766, 0.0]]

    Source: OpenCV's documentation of calib3d, "Camera Calibration and 3D Reconstruction", and of its fisheye model.
    """

    model: str = "pinhole"
    coefficients: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise LiftingDataError(f"lens: model={self.model!r}: one of {', '.join(MODELS)} is expected")
        count, allowed = len(self.coefficients), MODELS[self.model]
        if count not in allowed or not np.isfinite(self.coefficients).all():
            told = "not finite" if count in allowed else f"{count} coefficients of distortion"
            raise LiftingDataError(
                f"lens: {told}: a {self.model} lens has {' or '.join(map(str, allowed))} finite ones, in OpenCV's order"
            )

    def distort(self, plane: Array) -> Array:
        """Where the lens puts points (..., 2) of the plane at depth 1, in that plane."""
        if self.model == "fisheye":
            return _fisheye(plane, self.coefficients)
        return _pinhole(plane, np.pad(np.array(self.coefficients, dtype=np.float64), (0, 14 - len(self.coefficients))))

    def undistort(self, plane: Array) -> Array:
        """The points (..., 2) that the lens puts at ``plane``; NaN where it puts none, far outside of what it sees."""
        return _undo_fisheye(plane, self.coefficients) if self.model == "fisheye" else invert(self.distort, plane)


def _pinhole(plane: Array, coefficients: Array) -> Array:
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4, tilt_x, tilt_y = coefficients
    x, y = plane[..., 0], plane[..., 1]
    r2 = x**2 + y**2
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    moved = [
        x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x**2) + r2 * (s1 + r2 * s2),
        y * radial + p1 * (r2 + 2 * y**2) + 2 * p2 * x * y + r2 * (s3 + r2 * s4),
    ]
    if not (tilt_x or tilt_y):
        return np.stack(moved, axis=-1)
    tilted = np.stack([*moved, np.ones_like(x)], axis=-1) @ _tilt(tilt_x, tilt_y).T
    return tilted[..., :2] / tilted[..., 2:]


def _tilt(x: float, y: float) -> Array:
    """The homography of a sensor that is turned by x, then y, radians."""
    about_x = np.array([[1, 0, 0], [0, np.cos(x), np.sin(x)], [0, -np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    turn = about_y @ about_x
    onto: Array = np.array([[turn[2, 2], 0, -turn[0, 2]], [0, turn[2, 2], -turn[1, 2]], [0, 0, 1]]) @ turn
    return onto


def _fisheye(plane: Array, coefficients: tuple[float, ...]) -> Array:
    radius = np.linalg.norm(plane, axis=-1, keepdims=True)
    bent = _bend(np.arctan(radius), coefficients)[0]
    return plane * np.where(radius > 1e-12, bent / np.maximum(radius, 1e-12), 1)


def _bend(angle: Array, coefficients: tuple[float, ...]) -> tuple[Array, Array]:
    """Distance from the middle of a ray at an angle to the axis, and its derivative."""
    k1, k2, k3, k4 = coefficients
    a2 = angle**2
    bent = angle * (1 + a2 * (k1 + a2 * (k2 + a2 * (k3 + a2 * k4))))
    return bent, 1 + a2 * (3 * k1 + a2 * (5 * k2 + a2 * (7 * k3 + a2 * 9 * k4)))


def _undo_fisheye(plane: Array, coefficients: tuple[float, ...]) -> Array:
    bent = np.linalg.norm(plane, axis=-1, keepdims=True)
    angle = bent.clip(0, 1.5)
    for _ in range(_STEPS):
        found, slope = _bend(angle, coefficients)
        angle = (angle - (found - bent) / np.where(np.abs(slope) > 1e-6, slope, np.inf)).clip(0, np.pi / 2)
    found, slope = _bend(angle, coefficients)
    good = (np.abs(found - bent) < _NEAR) & (slope > 0) & (angle < np.pi / 2 - 1e-6)
    scale = np.where(bent > 1e-12, np.tan(np.where(good, angle, 0)) / np.maximum(bent, 1e-12), 1)
    return np.where(good, plane * scale, np.nan)


def invert(distort: Callable[[Array], Array], distorted: Array) -> Array:
    """The points that ``distort`` moves to ``distorted`` (..., 2), by Newton's method.

    Beyond a certain angle a polynomial of distortion turns back, and a point there is seen where another is already:
    what is found is on the near side of that. NaN where there is nothing to be found.
    """
    distorted = np.asarray(distorted, dtype=np.float64)
    there = np.isfinite(distorted)
    target = np.where(there, distorted, 0)
    found = target.copy()
    with np.errstate(all="ignore"):  # a point that runs away is NaN in the end
        for _ in range(_STEPS):
            off = distort(found) - target
            if not (np.abs(off) >= 1e-13).any():
                break
            found = found - _solve(_jacobian(distort, found), off).clip(-0.5, 0.5)
        off, slope = distort(found) - target, _jacobian(distort, found)
        upright = slope[..., 0, 0] * slope[..., 1, 1] > slope[..., 0, 1] * slope[..., 1, 0]
        good = (np.abs(off) < _NEAR).all(axis=-1) & upright & there.all(axis=-1)
    return np.where(good[..., None], found, np.nan)


def _jacobian(distort: Callable[[Array], Array], at: Array) -> Array:
    steps = _STEP * np.eye(2)
    return np.stack([(distort(at + step) - distort(at - step)) / (2 * _STEP) for step in steps], axis=-1)


def _solve(slope: Array, off: Array) -> Array:
    a, b, c, d = slope[..., 0, 0], slope[..., 0, 1], slope[..., 1, 0], slope[..., 1, 1]
    across = np.stack([d * off[..., 0] - b * off[..., 1], a * off[..., 1] - c * off[..., 0]], axis=-1)
    return across / (a * d - b * c)[..., None]
