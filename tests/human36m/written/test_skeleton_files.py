"""BVH and glTF: read back by other code they are where the poses are, to the error that is stated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cycledistill.integrations.human36m.data.motion import generate_motion
from cycledistill.integrations.human36m.data.skeleton import BONES, JOINTS, PARENTS
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.written import fit_rig, write_bvh, write_gltf
from tests.human36m.written.read_back import Gltf, Joint, Place, read_bvh, turn

SHARED = Path(__file__).resolve().parents[4] / "shared/data/motion/cmu17_60fps_int16mm.npz"
MOVED = generate_motion(1, 12)[0].world.astype(np.float64)


def rigid(frames: int = 12, seed: int = 0) -> np.ndarray:
    """Someone of constant bones whose hips, trunk and shoulders are each one piece, turned anyhow, metres, y up."""
    rng = np.random.default_rng(seed)
    rest = fit_rig(MOVED).offsets
    poses, turned = np.zeros((frames, 17, 3)), np.zeros((frames, 17, 3, 3))
    for frame in range(frames):
        for joint, parent in enumerate(PARENTS):
            wide = 180 if joint == 0 else 40
            own = turn(2, rng.uniform(-wide, wide)) @ turn(1, rng.uniform(-wide, wide)) @ turn(0, rng.uniform(-40, 40))
            above = turned[frame, parent] if joint else np.eye(3)
            start = poses[frame, parent] if joint else rng.normal(0, 1, 3)
            poses[frame, joint], turned[frame, joint] = start + above @ rest[joint], above @ own
    return poses


def as_array(place: Place) -> np.ndarray:
    return np.stack([place[name] for name in JOINTS])


def parents(joint: Joint, above: str | None = None) -> dict[str, str | None]:
    found = {joint.name: above}
    for child in joint.children:
        found |= parents(child, joint.name) if child.channels else {}
    return found


@pytest.mark.parametrize(("unit", "scale"), [("cm", 100), ("m", 1), ("mm", 1000)])
def test_a_bvh_of_constant_bones_is_where_the_poses_are(tmp_path: Path, unit: str, scale: float) -> None:
    poses = rigid()
    rig = write_bvh(poses, tmp_path / "a.bvh", 60, unit=unit)
    root, seconds, places = read_bvh(tmp_path / "a.bvh")
    assert rig.error.max() < 1e-9 and seconds == pytest.approx(1 / 60, abs=1e-9)
    assert parents(root) == {
        name: JOINTS[parent] if parent >= 0 else None for name, parent in zip(JOINTS, PARENTS, strict=True)
    }
    np.testing.assert_allclose(np.stack([as_array(place) for place in places]) / scale, poses, atol=2e-5)


def test_of_bones_that_change_the_error_is_the_stated_one(tmp_path: Path) -> None:
    poses = rigid() + np.random.default_rng(1).normal(0, 0.01, (12, 17, 3))
    rig = write_bvh(poses, tmp_path / "a.bvh", 50)
    found = np.stack([as_array(place) for place in read_bvh(tmp_path / "a.bvh")[2]]) / 100
    np.testing.assert_allclose(np.linalg.norm(found - poses, axis=-1), rig.error, atol=1e-6)
    assert 0.002 < rig.error.mean() < 0.03  # of the order of the noise
    for parent, joint in BONES:
        median = np.median(np.linalg.norm(poses[:, joint] - poses[:, parent], axis=-1))
        np.testing.assert_allclose(np.linalg.norm(found[:, joint] - found[:, parent], axis=-1), median, atol=1e-6)
    assert f"{1000 * rig.error.mean():.1f} mm on average" in rig.describe()


@pytest.mark.parametrize("suffix", ["glb", "gltf"])
def test_a_gltf_is_where_the_poses_are(tmp_path: Path, suffix: str) -> None:
    poses = rigid()
    write_gltf(poses, tmp_path / f"a.{suffix}", 50)
    read = Gltf(tmp_path / f"a.{suffix}")
    for frame in range(0, len(poses), 3):
        np.testing.assert_allclose(as_array(read.joints(frame / 50)), poses[frame], atol=1e-5)
    middle = as_array(read.joints(0.5 / 50))[0]
    np.testing.assert_allclose(middle, poses[:2, 0].mean(axis=0), atol=1e-5)  # the pelvis, half way


def test_the_skin_of_a_gltf_goes_with_its_bones(tmp_path: Path) -> None:
    poses = rigid(3)
    write_gltf(poses, tmp_path / "a.glb", 50)
    bodies = Gltf(tmp_path / "a.glb").skin(2 / 50).reshape(len(BONES), 24, 3)
    for body, (parent, joint) in zip(bodies, BONES, strict=True):
        for end in (poses[2, parent], poses[2, joint]):
            assert np.linalg.norm(body - end, axis=1).min() < 1e-5
        length = np.linalg.norm(poses[2, joint] - poses[2, parent])
        assert np.linalg.norm(body - poses[2, [parent, joint]].mean(axis=0), axis=1).max() < 0.51 * length


def test_quaternions_do_not_jump_between_frames(tmp_path: Path) -> None:
    """Someone who turns round twice; between frames, as viewers show them, nothing leaves its way."""
    poses = np.stack([rigid(1)[0] @ turn(1, angle).T for angle in np.linspace(0, 720, 37)])
    write_gltf(poses, tmp_path / "a.glb", 50)
    read = Gltf(tmp_path / "a.glb")
    for channel in read.json["animations"][0]["channels"]:
        values = read.array(read.json["animations"][0]["samplers"][channel["sampler"]]["output"])
        if channel["target"]["path"] == "rotation":
            assert ((values[1:] * values[:-1]).sum(axis=1) > 0).all()  # for viewers that go the long way otherwise
    for frame in (2, 17):
        half = as_array(read.joints((frame + 0.5) / 50))
        expected = poses[0] @ turn(1, 20 * (frame + 0.5)).T
        assert np.abs(half - half[0] - (expected - expected[0])).max() < 0.01


def test_one_frame_and_bones_that_point_against_their_rest_are_written(tmp_path: Path) -> None:
    poses = rigid(1)
    poses[0, 13] = poses[0, 11]  # a wrist at its shoulder
    write_gltf(poses, tmp_path / "a.glb", 50)
    write_bvh(poses, tmp_path / "a.bvh", 50)
    found = as_array(Gltf(tmp_path / "a.glb").joints(0.0))
    np.testing.assert_allclose(found, as_array(read_bvh(tmp_path / "a.bvh")[2][0]) / 100, atol=1e-5)
    assert np.linalg.norm(found - poses[0], axis=-1)[13] < 0.2


@pytest.mark.skipif(not SHARED.is_file(), reason="needs recorded motion in ../shared")
def test_recorded_motion_moves_by_millimetres(tmp_path: Path) -> None:
    """CMU's skeletons have constant bones; shoulders move against the thorax, which one joint cannot follow."""
    with np.load(SHARED) as file:
        poses = file["train/walking/walking_1"][:60] / 1000.0
    rig = write_bvh(poses, tmp_path / "a.bvh", 60)
    write_gltf(poses, tmp_path / "a.glb", 60)
    found = np.stack([as_array(place) for place in read_bvh(tmp_path / "a.bvh")[2]]) / 100
    off = np.linalg.norm(found - poses, axis=-1)
    assert off.mean() < 0.004 and off.max() < 0.02
    np.testing.assert_allclose(off, rig.error, atol=1e-6)
    np.testing.assert_allclose(as_array(Gltf(tmp_path / "a.glb").joints(59 / 60)), found[59], atol=1e-5)


NOTHING = np.zeros((0, 17, 3))
HOLE, ENDLESS, POINT = MOVED.copy(), MOVED.copy(), MOVED.copy()
HOLE[3, 5], ENDLESS[0, 0, 0], POINT[:, 2] = np.nan, np.inf, MOVED[:, 1]


@pytest.mark.parametrize("write", [write_bvh, write_gltf], ids=["bvh", "gltf"])
def test_what_is_no_skeleton_is_refused_and_not_written(tmp_path: Path, write: object) -> None:
    file = tmp_path / ("a.bvh" if write is write_bvh else "a.glb")
    for poses, rate, told in (
        (NOTHING, 50, "there is no frame in it"),
        (HOLE, 50, "1 joints are not known, the first is left_knee in frame 3.*fill_joints"),
        (ENDLESS, 50, "finite numbers are expected"),
        (POINT, 50, "right_hip and right_knee are in one place"),
        (MOVED[:, :16], 50, r"shape \(12, 16, 3\): \(T, 17, 3\), Human3.6M's joints.*body_joints"),
        (MOVED, 0, "frame_rate=0: frames a second, a number from 1"),
        (MOVED, float("nan"), "frames a second"),
    ):
        with pytest.raises(LiftingDataError, match=told):
            write(poses, file, rate)  # type: ignore[operator]
    for name, told in (("a.fbx", "ends in .bvh|ends in .glb or .gltf"), ("no/a" + file.suffix, "no folder")):
        with pytest.raises(LiftingDataError, match=told):
            write(MOVED, tmp_path / name, 50)  # type: ignore[operator]
    assert not list(tmp_path.iterdir())


def test_a_unit_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LiftingDataError, match="unit='inch': one of 'm', 'cm', 'mm'"):
        write_bvh(MOVED, tmp_path / "a.bvh", 50, unit="inch")
