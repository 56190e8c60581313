"""The generated figure: deterministic, of constant bone lengths, on the ground, and moving as its action says."""

from __future__ import annotations

import numpy as np
import pytest

from cycledistill.integrations.human36m.data.motion import ACTIONS, generate_motion
from cycledistill.integrations.human36m.data.skeleton import BONES, JOINTS, mirror
from cycledistill.integrations.human36m.errors import LiftingDataError


def test_the_seed_decides_everything_and_the_number_nothing() -> None:
    one, two = generate_motion(4, 60, seed=3), generate_motion(2, 60, seed=3, first=2)
    for a, b in zip(one[2:], two, strict=True):
        assert (a.action, a.name) == (b.action, b.name)
        assert np.array_equal(a.world, b.world)
    other = generate_motion(1, 60, seed=4)[0]
    assert not np.allclose(one[0].world, other.world, atol=0.01)
    assert [motion.action for motion in one] == list(ACTIONS)


def test_the_same_motion_everywhere() -> None:
    world = generate_motion(1, 20, seed=0)[0].world
    left_ankle = world[[0, 19], JOINTS.index("left_ankle")] * 1000
    np.testing.assert_allclose(left_ankle, [[-199, 80, -51], [-91, 225, 193]], atol=1)  # platforms differ below that


def test_bones_keep_their_lengths_and_a_foot_its_place_on_the_ground() -> None:
    for motion in generate_motion(8, 100, seed=1):
        parents, joints = np.array(BONES).T
        lengths = np.linalg.norm(motion.world[:, joints] - motion.world[:, parents], axis=-1)
        assert np.ptp(lengths, axis=0).max() < 1e-5
        assert 0.2 < lengths[0, 1] / lengths[0].sum() * 4 < 0.8  # a thigh
        ankles = motion.world[:, [JOINTS.index("left_ankle"), JOINTS.index("right_ankle")], 1]
        np.testing.assert_allclose(ankles.min(axis=1), 0.08, atol=1e-5)
        assert np.linalg.norm(np.diff(motion.world, axis=0), axis=-1).max() < 0.2, "a joint jumped"
        assert motion.world[:, JOINTS.index("head"), 1].min() > motion.world[:, 0, 1].min()


def test_each_action_moves_what_it_is_named_for() -> None:
    spread = {}
    for motion in generate_motion(8, 200, seed=2):
        relative = motion.world - motion.world[:, :1]
        wrists = max(np.ptp(relative[:, JOINTS.index(f"{side}_wrist"), 1]) for side in ("left", "right"))
        root = motion.world[:, 0]
        spread.setdefault(motion.action, []).append((wrists, np.ptp(root[:, 1]), np.linalg.norm(np.ptp(root, axis=0))))
    travelled = {action: np.mean([values[2] for values in found]) for action, found in spread.items()}
    assert travelled["walking"] > 1.5
    assert max(travelled["waving"], travelled["reaching"]) < 0.5
    assert np.mean([values[1] for values in spread["squatting"]]) > 0.15
    assert np.mean([values[0] for values in spread["reaching"]]) > 0.3


def test_mirroring_twice_gives_the_poses_back() -> None:
    poses = generate_motion(1, 10)[0].world
    assert np.array_equal(mirror(mirror(poses)), poses)
    assert np.array_equal(mirror(poses)[:, 1, 1:], poses[:, 4, 1:])
    assert np.array_equal(mirror(poses)[:, 0, 0], -poses[:, 0, 0])


def test_nothing_cannot_be_generated() -> None:
    with pytest.raises(LiftingDataError, match="0 sequences of 10 frames"):
        generate_motion(0, 10)
