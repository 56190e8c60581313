"""Triangulation against made scenes, OpenCV's triangulatePoints and the least squares of SciPy."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.optimize import least_squares

from cycledistill.integrations.human36m.data import Camera, ring_of_cameras
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.multiview.triangulation import triangulate

MIDDLE = np.array([10.0, 1.0, -20.0])
WORLD = np.random.default_rng(0).uniform(-0.8, 0.8, (5, 7, 3)) + MIDDLE
RING = ring_of_cameras(MIDDLE, 4, focal=1000.0, size=(1000, 1000), first_angle=0.4)


def seen(cameras: list[Camera], world: np.ndarray = WORLD) -> np.ndarray:
    return np.stack([camera.project(camera.to_camera(world)) for camera in cameras])


def lensed(cameras: list[Camera]) -> list[Camera]:
    """The same cameras with four lenses that OpenCV knows."""
    lenses: list[tuple[tuple[float, ...], str]] = [
        ((-0.25, 0.08, 0.002, -0.001), "pinhole"),
        ((0.6, 0.1, 0.002, -0.003, 0.01, 0.9, 0.2, 0.02), "pinhole"),
        ((-0.04, 0.01, -0.004, 0.0008), "fisheye"),
        ((), "pinhole"),
    ]
    made = []
    for camera, (distortion, model) in zip(cameras, lenses, strict=True):
        turn, K = camera.rotation.T, np.diag([*camera.focal, 1.0])
        K[:2, 2] = camera.centre
        made.append(Camera.from_opencv(camera.name, turn, -turn @ camera.position, K, (1000, 1000), distortion, model))
    return made


@pytest.mark.parametrize("ransac", [True, False])
def test_points_come_back_through_any_lenses(ransac: bool) -> None:
    cameras = lensed(RING)
    found = triangulate(cameras, seen(cameras), ransac=ransac)
    assert np.abs(found.points - WORLD).max() < 1e-7
    assert found.error.max() < 1e-5
    assert found.used.shape == (4, 5, 7) and found.used.all()


def test_two_views_are_as_cv2_triangulates_them() -> None:
    cameras, noise = RING[:2], np.random.default_rng(1).normal(0, 1, (2, 5, 7, 2))
    for pixels, near in ((seen(cameras), 1e-6), (seen(cameras) + noise, 2e-3)):  # metres
        maps = []
        for camera in cameras:
            turn, K = camera.rotation.T, np.diag([*camera.focal, 1.0])
            K[:2, 2] = camera.centre
            maps.append(K @ np.hstack([turn, (-turn @ (camera.position - MIDDLE))[:, None]]))
        theirs = cv2.triangulatePoints(*maps, *(each.reshape(-1, 2).T for each in pixels))
        expected = (theirs[:3] / theirs[3]).T.reshape(WORLD.shape) + MIDDLE
        assert np.abs(triangulate(cameras, pixels).points - expected).max() < near


def test_noisy_views_give_the_point_of_the_least_weighted_pixels() -> None:
    cameras = lensed(RING)
    random = np.random.default_rng(2)
    pixels = seen(cameras) + random.normal(0, 2, (4, 5, 7, 2))
    weights = random.uniform(0.2, 1, (4, 5, 7, 1))
    found = triangulate(cameras, np.concatenate([pixels, weights], axis=-1), ransac=False)
    for i, j in ((0, 0), (2, 3), (4, 6)):

        def off(point: np.ndarray, i: int = i, j: int = j) -> np.ndarray:
            return ((seen(cameras, point) - pixels[:, i, j]) * np.sqrt(weights[:, i, j])).ravel()

        best = least_squares(off, WORLD[i, j], xtol=1e-12).x
        assert np.linalg.norm(found.points[i, j] - best) < 5e-4  # the lenses' pixels are not those of the plane
        assert np.linalg.norm(best - WORLD[i, j]) > 2e-3
    assert np.abs(found.error - np.linalg.norm(seen(cameras, found.points) - pixels, axis=-1).mean(axis=0)).max() < 1e-9


def test_a_view_that_is_wrong_is_left_out_and_named() -> None:
    pixels = seen(RING) + np.random.default_rng(3).normal(0, 1, (4, 5, 7, 2))
    right = triangulate(RING, pixels)
    wrong = pixels.copy()
    wrong[2, 1, 3] += [150, -80]  # left and right exchanged, say
    found = triangulate(RING, wrong)
    assert found.used[:, 1, 3].tolist() == [True, True, False, True]
    assert found.used.sum() == 4 * 35 - 1
    assert np.linalg.norm(found.points[1, 3] - WORLD[1, 3]) < 0.01
    assert np.delete(np.abs(found.points - right.points).max(axis=-1).ravel(), 10).max() == 0
    trusting = triangulate(RING, wrong, ransac=False)
    assert np.linalg.norm(trusting.points[1, 3] - WORLD[1, 3]) > 0.05
    assert trusting.error[1, 3] > 20


def test_three_wrong_of_seven_are_outvoted() -> None:
    ring = ring_of_cameras(MIDDLE, 7, first_angle=0.1)
    pixels = seen(ring)
    pixels[[0, 3, 5]] += np.random.default_rng(4).choice([-1, 1], (3, 5, 7, 2)) * [90, 140]
    found = triangulate(ring, pixels)
    assert np.abs(found.points - WORLD).max() < 1e-6
    assert (found.used == np.array([0, 1, 1, 0, 1, 0, 1], bool)[:, None, None]).all()


def test_what_was_not_found_in_a_view_does_not_count() -> None:
    pixels = np.concatenate([seen(RING), np.ones((4, 5, 7, 1))], axis=-1)
    pixels[0] = np.nan  # a view is missing
    pixels[1, 0, 0] = 0  # not detected
    pixels[1, 0, 1] = [3, 4, 0.01]  # guessed
    pixels[2:, 0, 2] = np.nan  # one view is left
    found = triangulate(RING, pixels)
    assert np.isnan(found.points[0, 2]).all() and np.isnan(found.error[0, 2]) and not found.used[:, 0, 2].any()
    rest = np.ones((5, 7), bool)
    rest[0, 2] = False
    assert np.abs(found.points[rest] - WORLD[rest]).max() < 1e-6
    assert found.used[:, 0, 0].tolist() == found.used[:, 0, 1].tolist() == [False, False, True, True]
    assert np.isnan(triangulate(RING, pixels, least_views=3).points[0, 0]).all()
    trusting = triangulate(RING, pixels, ransac=False)  # a guess does not count there either
    assert np.abs(trusting.points[rest] - WORLD[rest]).max() < 1e-6


def test_no_point_where_the_views_cannot_tell_or_disagree() -> None:
    near = RING[0].position + np.array([0, 0.02, 0])
    beside = [RING[0], replace(RING[0], position=near)]
    assert np.isnan(triangulate(beside, seen(beside)).points).all()  # 0.2 degrees from each other
    pixels = seen(RING[:2])
    pixels[1, :, 0, 1] += 100
    apart = triangulate(RING[:2], pixels)
    assert np.isnan(apart.points[:, 0]).all() and not apart.used[:, :, 0].any()
    assert np.abs(apart.points[:, 1:] - WORLD[:, 1:]).max() < 1e-6
    turned = [replace(each, rotation=each.rotation @ np.diag([-1, 1, -1])) for each in RING[:2]]
    behind = seen(RING[:2]) * [1, -1] + [0, 1000]  # on the same lines, looked at the other way
    assert np.isnan(triangulate(turned, behind, ransac=False).points).all()


@pytest.mark.parametrize(
    ("cameras", "keypoints", "options", "said"),
    [
        (RING[:1], np.ones((1, 3, 2)), {}, "1 cameras: two or more"),
        (RING, np.ones((3, 5, 2)), {}, r"shape \(3, 5, 2\) for 4 cameras"),
        (RING, np.ones((4, 5, 4)), {}, "2 or 3"),
        (RING, np.ones((4, 5, 2)), {"threshold": 0}, "threshold=0"),
        (RING, np.ones((4, 5, 2)), {"least_views": 1}, "least_views=1"),
    ],
    ids=["one camera", "views", "channels", "threshold", "least views"],
)
def test_what_is_refused(cameras: list[Camera], keypoints: np.ndarray, options: dict[str, int], said: str) -> None:
    with pytest.raises(LiftingDataError, match=said):
        triangulate(cameras, keypoints, **options)


def test_no_points_at_all() -> None:
    assert triangulate(RING, np.ones((4, 0, 17, 2))).points.shape == (0, 17, 3)
