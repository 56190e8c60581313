"""Generated motion: an articulated figure that walks, waves, squats and reaches. Made by formulas, not recorded.

It serves to run and to test everything without a data set. Joint angles are sums of sines, the skeleton has human
lengths, the feet touch the ground; nothing else about it is human, and no figure measured on it says anything about
people. The same seed gives the same motion everywhere, and sequence ``i`` does not depend on how many there are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import LiftingDataError
from .clips import Motion
from .skeleton import JOINTS, PARENTS

Array = NDArray[np.float64]

ACTIONS = ("walking", "waving", "squatting", "reaching")
FRAMES_A_SECOND = 50

# From each joint's parent to the joint, metres; standing, arms hanging, facing z, y up, the right side at negative x.
_OFFSETS = np.array(
    [
        [0, 0, 0], [-0.13, 0, 0], [0, -0.45, 0], [0, -0.44, 0], [0.13, 0, 0], [0, -0.45, 0], [0, -0.44, 0],
        [0, 0.24, 0], [0, 0.25, 0], [0, 0.11, 0.03], [0, 0.11, 0],
        [0.15, -0.01, 0], [0, -0.28, 0], [0, -0.25, 0], [-0.15, -0.01, 0], [0, -0.28, 0], [0, -0.25, 0],
    ]
)  # fmt: skip
_ANKLE_HEIGHT = 0.08
_R_HIP, _R_KNEE, _L_HIP, _L_KNEE = (JOINTS.index(name) for name in ("right_hip", "right_knee", "left_hip", "left_knee"))
_SPINE, _NECK = JOINTS.index("spine"), JOINTS.index("neck")
_L_ARM, _L_ELBOW, _R_ARM, _R_ELBOW = (
    JOINTS.index(name) for name in ("left_shoulder", "left_elbow", "right_shoulder", "right_elbow")
)
_X, _Y, _Z = range(3)


def generate_motion(sequences: int = 32, frames: int = 240, seed: int = 0, first: int = 0) -> list[Motion]:
    """Motions of the four actions in turn, each with a body, a pace and a style of its own.

    Args:
        sequences: How many.
        frames: Frames of each, 50 a second.
        seed: Of all that is drawn.
        first: Number of the first sequence; take disjoint ranges for training and testing.

    Returns:
        Motions with ``world`` (frames, 17, 3), metres, y up.

    Raises:
        LiftingDataError: Fewer than one sequence or frame.

    Example:
        >>> generate_motion(2, frames=50)[0].world.shape
        (50, 17, 3)
    """
    if sequences < 1 or frames < 1:
        raise LiftingDataError(f"{sequences} sequences of {frames} frames: at least one of both is needed")
    motions = []
    for number in range(first, first + sequences):
        rng = np.random.default_rng((seed, number))
        action = ACTIONS[number % len(ACTIONS)]
        times = np.arange(frames) / FRAMES_A_SECOND
        angles, heading, speed = _perform(action, times, rng)
        world = _figure(angles, heading, speed, rng.uniform(0.9, 1.1))
        motions.append(Motion(f"figure_{number}", action, str(number), world.astype(np.float32)))
    return motions


def _perform(action: str, times: Array, rng: np.random.Generator) -> tuple[Array, Array, float]:
    """Joint angles (T, 17, 3) in radians, heading (T,) and speed in metres a second."""
    angles = _sway(times, rng)
    phase = 2 * np.pi * rng.uniform(0.6, 1.1) * times + rng.uniform(0, 2 * np.pi)
    size, speed, turn = rng.uniform(0.7, 1.2), 0.0, rng.normal(0, 0.1)
    if action == "walking":
        swing, speed, turn = 0.5 * size * np.sin(phase), 1.2 * size * rng.uniform(0.9, 1.1), rng.normal(0, 0.4)
        for hip, knee, arm, elbow, side in (
            (_R_HIP, _R_KNEE, _R_ARM, _R_ELBOW, 1),
            (_L_HIP, _L_KNEE, _L_ARM, _L_ELBOW, -1),
        ):
            angles[:, hip, _X] -= side * swing
            angles[:, knee, _X] += 0.55 * size * (1 + side * np.cos(phase))
            angles[:, arm, _X] += 0.8 * side * swing
            angles[:, elbow, _X] -= 0.3 + 0.3 * (1 + side * np.sin(phase))
    elif action == "waving":
        arm, elbow, side = ((_R_ARM, _R_ELBOW, -1), (_L_ARM, _L_ELBOW, 1))[rng.integers(2)]
        angles[:, arm, _Z] += side * rng.uniform(1.6, 2.4)
        angles[:, elbow, _Z] += side * size * (0.5 + 0.6 * np.sin(2 * phase))
    elif action == "squatting":
        bend = 0.6 * size * (1 - np.cos(phase))
        for hip, knee in ((_R_HIP, _R_KNEE), (_L_HIP, _L_KNEE)):
            angles[:, hip, _X] -= bend
            angles[:, knee, _X] += 1.7 * bend
        angles[:, _SPINE, _X] += 0.4 * bend
        for arm in (_R_ARM, _L_ARM):
            angles[:, arm, _X] -= 1.1 * bend
    else:
        for arm, elbow, delay in ((_R_ARM, _R_ELBOW, 0.0), (_L_ARM, _L_ELBOW, rng.uniform(0, np.pi))):
            lift = size * (1 - np.cos(0.6 * phase + delay))
            angles[:, arm, _X] -= 0.9 * lift
            angles[:, elbow, _X] -= 0.4 * size * (1 + np.sin(phase + delay))
        angles[:, _SPINE, _Y] += 0.4 * np.sin(0.6 * phase)
        angles[:, _SPINE, _X] += 0.3 * (1 - np.cos(0.6 * phase))
    return angles, rng.uniform(0, 2 * np.pi) + turn * times, speed


def _sway(times: Array, rng: np.random.Generator) -> Array:
    """Small slow movements of every joint, as sums of three sines each."""
    rates, phases = rng.uniform(0.1, 0.8, (3, 1, len(JOINTS), 3)), rng.uniform(0, 2 * np.pi, (3, 1, len(JOINTS), 3))
    sizes = rng.uniform(0, 0.05, (3, 1, len(JOINTS), 3))
    waves: Array = (sizes * np.sin(2 * np.pi * rates * times[:, None, None] + phases)).sum(axis=0)
    waves[:, 0] = 0
    waves[:, _NECK] *= 2
    return waves


def _figure(angles: Array, heading: Array, speed: float, scale: float) -> Array:
    """Positions (T, 17, 3) of the joints, by forward kinematics; the lower foot is on the ground."""
    turned = np.zeros_like(angles)
    turned[:, 0, _Y] = heading
    local = _rotations(angles + turned)
    oriented, placed = np.empty_like(local), np.zeros(angles.shape)
    oriented[:, 0] = local[:, 0]
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            oriented[:, joint] = oriented[:, parent] @ local[:, joint]
            # a joint's angles turn what hangs below it, so its own place follows its parent's
            placed[:, joint] = placed[:, parent] + oriented[:, parent] @ (scale * _OFFSETS[joint])
    ankles = placed[:, [JOINTS.index("right_ankle"), JOINTS.index("left_ankle")], 1]
    forward = np.stack([np.sin(heading), np.zeros_like(heading), np.cos(heading)], axis=-1)
    root = np.cumsum(forward * speed / FRAMES_A_SECOND, axis=0)
    root[:, 1] = _ANKLE_HEIGHT - ankles.min(axis=1)
    result: Array = placed + root[:, None]
    return result


def _rotations(angles: Array) -> Array:
    """Rotation matrices (..., 3, 3) of angles (..., 3) about x, then y, then z."""
    sines, cosines = np.sin(angles), np.cos(angles)
    matrices = []
    for axis, (one, two) in enumerate(((1, 2), (2, 0), (0, 1))):
        turn = np.zeros((*angles.shape[:-1], 3, 3))
        turn[..., axis, axis] = 1
        turn[..., one, one] = turn[..., two, two] = cosines[..., axis]
        turn[..., one, two], turn[..., two, one] = -sines[..., axis], sines[..., axis]
        matrices.append(turn)
    x, y, z = matrices
    result: Array = z @ y @ x
    return result
