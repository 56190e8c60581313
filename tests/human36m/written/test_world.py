"""Axes, joints and places: against turns made by hand, OpenCV's projection, and a person who was put there."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cycledistill.integrations.human36m.data.cameras import Camera, normalize_screen, screen_to_pixels
from cycledistill.integrations.human36m.data.motion import generate_motion
from cycledistill.integrations.human36m.data.stature import scale_to_height
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.written import (
    body_joints,
    fill_joints,
    place_in_world,
    stand,
    up_axis,
    upright,
)
from cycledistill.integrations.human36m.written.upright import UPS

WALK = generate_motion(1, 8)[0].world.astype(np.float64)
WALK = WALK - WALK[:, :1].mean(axis=0) + [0, 1, 0]
# A camera 4 m away on the world's x axis, y up, that looks back along it and lies on its side: its x points down in the
# world, its y along z.
TO_CAMERA = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]])
AT = np.array([4.0, 1.0, 0.0])
K, DIST = np.array([[900.0, 0, 640], [0, 900, 360], [0, 0, 1]]), np.array([-0.1, 0.02, 0.001, -0.002])
CAMERA = Camera.from_opencv("side", TO_CAMERA, -TO_CAMERA @ AT, K, (1280, 720), DIST)
IN_CAMERA = (WALK - AT) @ TO_CAMERA.T
SEEN = cv2.projectPoints(WALK.reshape(-1, 3), TO_CAMERA, -TO_CAMERA @ AT, K, DIST)[0].reshape(8, 17, 2)


def test_by_hand_a_camera_brings_points_back_to_the_world() -> None:
    # one metre along its x, two along its y, three ahead
    assert CAMERA.to_world(np.array([1.0, 2.0, 3.0])).tolist() == [4 - 3, 1 - 1, 0 + 2]
    np.testing.assert_allclose(CAMERA.to_world(CAMERA.to_camera(WALK)), WALK, atol=1e-12)


def test_a_person_is_put_where_they_were_seen() -> None:
    world, error = place_in_world(IN_CAMERA - IN_CAMERA[:, :1], SEEN, CAMERA)
    assert np.abs(world - WALK).max() < 1e-4 and error.max() < 0.01


def test_a_person_taken_for_too_tall_is_as_much_too_far_away() -> None:
    world, error = place_in_world(1.1 * (IN_CAMERA - IN_CAMERA[:, :1]), SEEN, CAMERA)
    np.testing.assert_allclose(world[:, 0] - AT, 1.1 * (WALK[:, 0] - AT), atol=1e-3)
    assert error.max() < 0.1


def test_noise_of_pixels_moves_the_place_by_centimetres() -> None:
    noisy = SEEN + np.random.default_rng(0).normal(0, 3, SEEN.shape)
    world, error = place_in_world(IN_CAMERA - IN_CAMERA[:, :1], noisy, CAMERA)
    assert np.linalg.norm((world - WALK)[:, 0], axis=-1).max() < 0.1 and 2 < error.mean() < 5


@pytest.mark.parametrize(
    ("told", "poses", "pixels"),
    [
        ("would be behind it", -(IN_CAMERA - IN_CAMERA[:, :1]), SEEN),
        ("% of the person's size in the picture off", (IN_CAMERA - IN_CAMERA[:, :1]) * [0.1, 1, 1], SEEN),
        ("pixels of shape", IN_CAMERA, SEEN[:3]),
        ("pixels of shape", IN_CAMERA, SEEN * np.nan),
        ("there is no frame", IN_CAMERA[:0], SEEN[:0]),
        ("1 joints are not known", np.where(np.arange(8 * 17 * 3).reshape(8, 17, 3) == 7, np.nan, IN_CAMERA), SEEN),
    ],
    ids=["mirrored", "other_pose", "length", "nan_pixels", "empty", "nan"],
)
def test_poses_that_were_not_seen_so_are_refused(told: str, poses: np.ndarray, pixels: np.ndarray) -> None:
    with pytest.raises(LiftingDataError, match=told):
        place_in_world(poses, pixels, CAMERA)


@pytest.mark.parametrize("up", UPS)
def test_upright_is_a_turn_that_brings_the_axis_up(up: str) -> None:
    axis = np.zeros(3)
    axis["xyz".index(up[-1])] = -1 if up.startswith("-") else 1
    assert upright(axis[None, None], up).tolist() == [[[0, 1, 0]]]
    assert np.linalg.det(upright(np.eye(3)[None], up)[0]) == pytest.approx(1)
    there = upright(WALK, "y") @ np.linalg.inv(upright(np.eye(3)[None], up)[0])  # somebody in axes with that one up
    assert up_axis(there) == up
    np.testing.assert_allclose(upright(there, up), WALK, atol=1e-12)


def test_camera_axes_are_upright_the_other_way_round_in_y_and_z() -> None:
    assert upright(np.array([[[1.0, 2.0, 3.0]]]), "-y").tolist() == [[[1, -2, -3]]]
    with pytest.raises(LiftingDataError, match="up='up': the axis that points up"):
        upright(WALK, "up")
    with pytest.raises(LiftingDataError, match="cannot be told"):
        up_axis(WALK * np.nan)


def test_standing_has_a_joint_on_the_floor_in_every_frame() -> None:
    assert np.isnan(stand(WALK * np.nan)).all()
    standing = stand(WALK - WALK[:, :1])
    np.testing.assert_allclose(standing[..., 1].min(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(standing[..., [0, 2]], (WALK - WALK[:, :1])[..., [0, 2]])


def test_a_detectors_joints_become_a_body() -> None:
    coco = np.random.default_rng(0).normal(size=(5, 17, 3))
    coco[2, 12] = np.nan  # the right hip
    body = body_joints(coco, "coco")
    np.testing.assert_allclose(body[0, 0], (coco[0, 11] + coco[0, 12]) / 2)
    np.testing.assert_allclose(body[0, 8], (coco[0, 5] + coco[0, 6]) / 2)
    np.testing.assert_allclose(body[0, 16], coco[0, 10])
    assert np.isnan(body[2, [0, 1, 7]]).all() and np.isfinite(body[2, [2, 3, 4, 8, 16]]).all()
    halpe = np.random.default_rng(1).normal(size=(5, 26, 3))
    np.testing.assert_allclose(body_joints(halpe, "halpe26")[:, [0, 8, 10]], halpe[:, [19, 18, 17]])
    assert body_joints(WALK, "h36m").tolist() == WALK.tolist()
    for poses, joints, told in ((WALK, "smpl", "joints='smpl': one of"), (halpe, "coco", r"\(T, 17, 3\)")):
        with pytest.raises(LiftingDataError, match=told):
            body_joints(poses, joints)


def test_holes_are_filled_from_the_frames_around() -> None:
    holes = WALK.copy()
    holes[3:5, 6] = holes[0, 2] = np.nan
    filled = fill_joints(holes)
    np.testing.assert_allclose(filled[3, 6], WALK[2, 6] + (WALK[5, 6] - WALK[2, 6]) / 3)
    assert filled[0, 2].tolist() == WALK[1, 2].tolist()
    holes[:, 6] = np.nan
    with pytest.raises(LiftingDataError, match="left_ankle is known in no frame"):
        fill_joints(holes)


def test_normalised_keypoints_become_pixels_again() -> None:
    again = screen_to_pixels(normalize_screen(SEEN, 1280, 720), 1280, 720)
    np.testing.assert_allclose(again, SEEN, atol=1e-3)


def test_a_height_in_other_units_is_told() -> None:
    assert np.isfinite(scale_to_height(WALK, 1.75)).all()
    for height, told in (
        (175, "175 cm give 1.75"),
        (1750, "1750 mm give 1.75"),
        (0, "0.3 to 2.8 metres"),
        (-1.7, "0.3"),
    ):
        with pytest.raises(LiftingDataError, match=told):
            scale_to_height(WALK, height)
    with pytest.raises(LiftingDataError, match="nan metres"):
        scale_to_height(WALK, float("nan"))
