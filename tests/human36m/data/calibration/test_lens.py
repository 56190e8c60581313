"""Lenses: distortion as OpenCV's own functions have it, and undone again."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cycledistill.integrations.human36m.data.calibration.lens import Lens
from cycledistill.integrations.human36m.data.cameras import Camera
from cycledistill.integrations.human36m.errors import LiftingDataError

K = np.array([[900.0, 0, 630], [0, 880, 370], [0, 0, 1]])
ROTATION = np.array([0.2, -0.4, 0.1])
T = np.array([0.3, -0.1, 4.0])
SIZE = (1280, 720)
PINHOLE = {
    "4": (-0.28, 0.09, 0.002, -0.003),
    "5": (-0.28, 0.09, 0.002, -0.003, -0.01),
    "rational": (0.6, 0.1, 0.002, -0.003, 0.01, 0.9, 0.2, 0.02),
    "prism": (-0.28, 0.09, 0.002, -0.003, -0.01, 0.01, 0, 0, 0.003, -0.001, 0.002, 0.001),
    "tilted": (-0.28, 0.09, 0.002, -0.003, -0.01, 0.01, 0, 0, 0.003, -0.001, 0.002, 0.001, 0.03, -0.02),
}
FISHEYE = (-0.04, 0.01, -0.004, 0.0008)


def points(spread: float = 1.0) -> np.ndarray:
    return np.random.default_rng(0).uniform(-spread, spread, (200, 3))


def camera(distortion: tuple[float, ...], model: str = "pinhole") -> Camera:
    return Camera.from_opencv("front", cv2.Rodrigues(ROTATION)[0], T, K, SIZE, np.array([distortion]), model)


@pytest.mark.parametrize("distortion", PINHOLE.values(), ids=PINHOLE)
def test_a_pinhole_camera_sees_what_cv2_project_points_says(distortion: tuple[float, ...]) -> None:
    expected = cv2.projectPoints(points(), ROTATION, T, K, np.array(distortion))[0][:, 0]
    ours = camera(distortion)
    assert np.abs(ours.project(ours.to_camera(points())) - expected).max() < 1e-9
    assert np.abs(expected - camera(()).project(ours.to_camera(points()))).max() > 5  # the distortion is worth undoing


def test_a_fisheye_camera_sees_what_cv2_fisheye_says() -> None:
    wide = points() * [4, 3, 1]  # rays up to 60 degrees off the axis
    expected = cv2.fisheye.projectPoints(wide[:, None], ROTATION, T, K, np.array(FISHEYE))[0][:, 0]
    ours = camera(FISHEYE, "fisheye")
    assert np.abs(ours.project(ours.to_camera(wide)) - expected).max() < 1e-9


@pytest.mark.parametrize("distortion", [*PINHOLE.values(), FISHEYE], ids=[*PINHOLE, "fisheye"])
def test_undistorted_pixels_are_the_rays_that_opencv_projected(distortion: tuple[float, ...]) -> None:
    rays = np.stack(np.meshgrid(np.linspace(-0.6, 0.6, 9), np.linspace(-0.4, 0.4, 7)), axis=-1).reshape(-1, 2)
    ahead = np.concatenate([rays, np.ones((len(rays), 1))], axis=1)
    if distortion is FISHEYE:
        seen = cv2.fisheye.projectPoints(ahead[:, None], np.zeros(3), np.zeros(3), K, np.array(FISHEYE))[0][:, 0]
    else:
        seen = cv2.projectPoints(ahead, np.zeros(3), np.zeros(3), K, np.array(distortion))[0][:, 0]
    ours = camera(distortion, "fisheye" if distortion is FISHEYE else "pinhole")
    assert np.abs(ours.undistort(seen) - rays).max() < 1e-8


def test_human36m_s_own_form_is_undone_too() -> None:
    ours = Camera(
        "a", np.eye(3), [0, 0, 0], [1145, 1143], [512, 515], (1000, 1002), (-0.2, 0.24, -0.002), (-9e-4, -1e-3)
    )
    rays = np.random.default_rng(1).uniform(-0.4, 0.4, (50, 2))
    seen = ours.project(np.concatenate([rays, np.ones((50, 1))], axis=1))
    assert np.abs(ours.undistort(seen) - rays).max() < 1e-8


def test_what_no_ray_comes_to_is_nan() -> None:
    turning = camera((-0.3, 0, 0, 0))  # r (1 - 0.3 r^2) is 0.703 at most
    assert np.isnan(turning.undistort(np.array([[630 + 900 * 0.8, 370.0]]))).all()
    found = turning.undistort(np.array([[630 + 900 * 0.7, 370.0], [np.nan, 3]]))
    assert 0.9 < found[0, 0] < np.sqrt(1 / 0.9)  # on the near side of where it turns back
    assert np.isnan(found[1]).all()
    folded = Lens(coefficients=(-0.31, -0.14, 0.05, 0.01, -0.14, -0.14, 0.83, -0.16))
    beyond = np.array([[-2.59310996, -3.78327873]])  # seen mirrored, where the polynomials have turned back
    seen = folded.distort(beyond)
    assert np.isnan(folded.undistort(seen)).all()
    assert np.isnan(camera(FISHEYE, "fisheye").undistort(np.array([[630 + 900 * 4.0, 370.0]]))).all()


@pytest.mark.parametrize(
    ("distortion", "model", "said"),
    [
        ((0.1, 0.2, 0.3), "pinhole", "front: lens: 3 coefficients .* has 0 or 4 or 5 or 8 or 12 or 14"),
        ((0.1,) * 5, "fisheye", "5 coefficients .* a fisheye lens has 4"),
        ((), "fisheye", "0 coefficients"),
        ((0.1,) * 4, "omnidir", "model='omnidir': one of pinhole, fisheye"),
        ((0.1, np.inf, 0, 0), "pinhole", "front: distortion"),
    ],
    ids=["three", "five of a fisheye", "none of a fisheye", "another model", "infinite"],
)
def test_what_is_no_lens(distortion: tuple[float, ...], model: str, said: str) -> None:
    with pytest.raises(LiftingDataError, match=said):
        camera(distortion, model)
