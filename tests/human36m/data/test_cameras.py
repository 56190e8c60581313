"""What a camera is built from is checked, OpenCV's calibration becomes what it means; normalised pictures, rings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cycledistill.integrations.human36m.data.cameras import Camera, normalize_screen, ring_of_cameras
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.multiview.rays import check_cameras, patch_rays

K = np.array([[900.0, 0, 330], [0, 880, 250], [0, 0, 1]])
SIZE = (640, 480)
GOLDEN = Path(__file__).parents[2] / "golden" / "metrics.npz"


def opencv_ring(count: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    """R and t of cameras around the origin, 4 m away: ``R @ X + t`` is a point of the world in camera axes."""
    found = []
    for angle in 0.3 + 2 * np.pi * np.arange(count) / count:
        away = np.array([4 * np.cos(angle), 1.0, 4 * np.sin(angle)])
        ahead = -away / np.linalg.norm(away)
        right = np.cross(ahead, [0, 1, 0]) / np.linalg.norm(np.cross(ahead, [0, 1, 0]))
        R = np.stack([right, np.cross(ahead, right), ahead])
        found.append((R, -R @ away))
    return found


def test_a_camera_of_opencv_sees_what_opencv_projects() -> None:
    points = np.random.default_rng(0).normal(0, 0.5, (30, 3))
    for R, t in opencv_ring():
        camera = Camera.from_opencv("c", R, t[:, None], K, SIZE)
        homogeneous = (R @ points.T + t[:, None]).T @ K.T  # OpenCV's definition: s [u, v, 1] = K (R X + t)
        expected = homogeneous[:, :2] / homogeneous[:, 2:]
        np.testing.assert_allclose(camera.project(camera.to_camera(points)), expected, atol=1e-8)
        # rays: points on them are seen in the middle of their patch
        rays = patch_rays(camera, (3, 4), (160, 160))
        seen = (R @ rays.T + t[:, None]).T @ K.T
        middles = np.stack([np.tile(np.arange(4) * 160 + 79.5, 3), np.repeat(np.arange(3) * 160 + 79.5, 4)], axis=-1)
        np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], middles, atol=1e-8)


def test_opencvs_rotation_and_position_as_ours_are_noticed() -> None:
    taken = [Camera(str(n), R, t, K.diagonal()[:2], K[:2, 2], SIZE) for n, (R, t) in enumerate(opencv_ring())]
    right = [Camera.from_opencv(str(n), R, t, K, SIZE) for n, (R, t) in enumerate(opencv_ring())]
    place = check_cameras(right)
    np.testing.assert_allclose(place, 0, atol=1e-9)
    np.testing.assert_allclose(check_cameras(ring_of_cameras(np.array([1.0, 2, 3]), 3)), [1, 2, 3], atol=1e-9)
    with pytest.raises(
        LiftingDataError, match=r"camera \d does not look at where the 4 cameras' axes meet.*from_opencv"
    ):
        check_cameras(taken)
    with pytest.raises(LiftingDataError, match="1 cameras: two or more"):
        check_cameras(right[:1])
    person = np.random.default_rng(1).normal(0, 0.3, (5, 17, 3))
    behind = next(each for each in taken if (each.to_camera(person)[..., 2] < 0).any())
    with pytest.raises(LiftingDataError, match=r"camera \d: \d+ of 85 points are not in front of it.*from_opencv"):
        behind.project(behind.to_camera(person))
    turned = [
        np.degrees(np.arccos(one.rotation[:, 2] @ other.rotation[:, 2]))
        for one, other in zip(taken, right, strict=True)
    ]
    assert max(turned) > 15, "rays that are off as far as that"


@pytest.mark.parametrize("kind", ["list", "tensor", "whole numbers"])
def test_arrays_of_every_kind(kind: str) -> None:
    R, t = opencv_ring()[1]
    turn = {"list": lambda a: a.tolist(), "tensor": torch.from_numpy, "whole numbers": lambda a: a}[kind]
    size: Any = [640.0, 480] if kind == "list" else torch.tensor([640, 480]) if kind == "tensor" else SIZE
    focal = np.array([900, 880]) if kind == "whole numbers" else np.array([900.0, 880])
    camera = Camera("c", turn(R.T), turn(-R.T @ t), turn(focal), turn(K[:2, 2].copy()), size)
    expected = Camera.from_opencv("c", R, t, K, SIZE)
    points = np.ones((2, 3))
    np.testing.assert_allclose(camera.to_camera(points), expected.to_camera(points))
    np.testing.assert_allclose(camera.project(points), expected.project(points))
    assert camera.size == (640, 480) and isinstance(camera.size[0], int)


GOOD: dict[str, Any] = {
    "rotation": np.eye(3), "position": np.zeros(3), "focal": [900.0, 900.0], "centre": [320.0, 240.0], "size": SIZE,
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rotation", 2 * np.eye(3), "rotation: .*this is a rotation times 2: divide by that"),
        ("rotation", np.diag([1.0, -1, 1]), "rotation: .*this is a reflection"),
        ("rotation", np.eye(3) + 0.1, "rotation: .*this is none"),
        ("rotation", np.zeros((3, 3)), "rotation: .*this is none"),
        ("rotation", np.zeros(3), r"rotation: shape \(3,\): finite numbers of shape \(3, 3\)"),
        ("rotation", [[1, 0, 0], [0, 1]], "rotation: .*finite numbers of shape"),
        ("position", [0, 0, np.nan], "position: .*nan"),
        ("position", "here", "position: 'here'"),
        ("focal", [900.0, -900.0], "focal=.*above 0"),
        ("focal", 900.0, r"focal: shape \(\)"),
        ("size", (640, 0), "size=.*whole pixels above 0"),
        ("size", (640.5, 480), "size=.*whole pixels above 0"),
        ("radial", (0.1, 0.2), r"radial: shape \(2,\)"),
        ("tangential", None, r"tangential: None"),
    ],
)
def test_what_is_no_camera(field: str, value: Any, message: str) -> None:
    Camera("front", **GOOD)
    with pytest.raises(LiftingDataError, match=f"camera front: {message}"):
        Camera("front", **GOOD | {field: value})


def test_camera_matrices_that_are_none() -> None:
    for wrong in (K.T, 2 * K, K[:2], K + np.array([[0, 3, 0], [0, 0, 0], [0, 0, 0]])):
        with pytest.raises(LiftingDataError, match="camera c: K"):
            Camera.from_opencv("c", np.eye(3), np.zeros(3), wrong, SIZE)
    with pytest.raises(LiftingDataError, match="camera c: t: .*shape \\(3,\\)"):
        Camera.from_opencv("c", np.eye(3), np.zeros(4), K, SIZE)
    with pytest.raises(LiftingDataError, match="camera c: R: .*times 3"):
        Camera.from_opencv("c", 3 * np.eye(3), np.zeros(3), K, SIZE)


def test_golden_normalisation() -> None:
    with np.load(GOLDEN) as golden:
        found = normalize_screen(golden["pixels"], 1000, 1002)
        np.testing.assert_allclose(found, golden["normalized_w1000_h1002"], rtol=1e-6, atol=1e-7)
    with pytest.raises(LiftingDataError, match="0 x 1000"):
        normalize_screen(np.zeros((1, 2)), 0, 1000)


def test_a_ring_of_cameras_looks_at_its_centre() -> None:
    centre = np.array([1.0, 1.0, -2.0])
    for camera in ring_of_cameras(centre, 5, first_angle=0.3):
        np.testing.assert_allclose(camera.rotation.T @ camera.rotation, np.eye(3), atol=1e-12)
        assert np.linalg.det(camera.rotation) == pytest.approx(1)
        np.testing.assert_allclose(camera.project(camera.to_camera(centre)), [500, 500], atol=1e-9)
        above = camera.project(camera.to_camera(centre + np.array([0, 0.5, 0])))
        assert above[1] < 450 and above[0] == pytest.approx(500), "up is up in the picture"
