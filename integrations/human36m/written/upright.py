"""Poses of any joints and axes as those that all writers here take: Human3.6M's 17, metres, y up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..data.skeleton import JOINTS, coco_to_h36m, halpe_to_h36m
from ..errors import LiftingDataError

Array = NDArray[np.floating]

_TURNS = {
    "x": ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
    "-x": ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
    "y": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "-y": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "z": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "-z": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
}
"""The axis that points up -> the rotation that makes it y; no mirror."""
UPS = tuple(_TURNS)
JOINT_COUNTS = {"h36m": 17, "coco": 17, "halpe26": 26}
"""Orders of joints that can be written -> how many there are."""
_PELVIS, _THORAX = JOINTS.index("pelvis"), JOINTS.index("thorax")


def check_body(poses: Array, source: str, *, known: bool = True) -> None:
    """Refuse what is no clip of Human3.6M's 17 joints.

    Args:
        poses: (T, 17, 3).
        source: Where from, for messages.
        known: Every joint must be: what is NaN is not.

    Raises:
        LiftingDataError: Another shape, no frame, infinite numbers, no joint at all; with ``known``, one that is NaN.
    """
    if poses.ndim != 3 or poses.shape[1:] != (len(JOINTS), 3):
        raise LiftingDataError(
            f"{source} of shape {poses.shape}: (T, {len(JOINTS)}, 3), Human3.6M's joints, is expected; "
            "body_joints makes them of COCO's and Halpe's"
        )
    if not len(poses):
        raise LiftingDataError(f"{source}: there is no frame in it")
    missing = np.any(np.isnan(poses), axis=-1)
    if np.isinf(poses).any() or missing.all():
        raise LiftingDataError(f"{source}: finite numbers are expected (NaN, where a joint is not known)")
    if known and missing.any():
        frame, joint = np.argwhere(missing)[0]
        raise LiftingDataError(
            f"{source}: {missing.sum()} joints are not known, the first is {JOINTS[joint]} in frame {frame}: a "
            "skeleton needs all in every frame; fill_joints fills them from the frames around"
        )


def body_joints(poses: Array, joints: str) -> NDArray[np.float64]:
    """3D poses of a detector's joints, as `triangulate` makes them, as Human3.6M's 17.

    What Human3.6M has and COCO has not is the mean of keypoints: thorax and pelvis of shoulders and hips, the spine
    between, the neck joint is the nose, the head the middle of the eyes.

    Args:
        poses: (T, J, 3), NaN where a joint is not known.
        joints: ``"h36m"``, ``"coco"`` or ``"halpe26"``.

    Returns:
        (T, 17, 3), NaN where something of a joint is not known.

    Raises:
        LiftingDataError: Other joints, or another number of them.

    Example:
        >>> body_joints(np.zeros((10, 26, 3)), "halpe26").shape
        (10, 17, 3)
    """
    if joints not in JOINT_COUNTS:
        raise LiftingDataError(
            f"joints={joints!r}: one of {', '.join(map(repr, JOINT_COUNTS))} is expected; bring other skeletons to one "
            "of these orders first"
        )
    if poses.ndim != 3 or poses.shape[1:] != (JOINT_COUNTS[joints], 3):
        raise LiftingDataError(
            f"poses of shape {poses.shape}: (T, {JOINT_COUNTS[joints]}, 3), the joints of {joints!r}, is expected"
        )
    numbers = poses.astype(np.float64)
    if joints == "h36m":
        return numbers
    # Both take means of x and y, and of a third number, a confidence, the least: so two axes at a time.
    parts = [
        halpe_to_h36m(pair) if joints == "halpe26" else coco_to_h36m(pair, "midpoints")  # type: ignore[arg-type]
        for pair in (numbers[..., :2], numbers[..., 1:])
    ]
    return np.concatenate([parts[0], parts[1][..., 1:]], axis=-1).astype(np.float64)


def fill_joints(poses: Array) -> NDArray[np.float64]:
    """Poses (T, 17, 3) with joints that are NaN interpolated from the nearest frames that have them.

    Raises:
        LiftingDataError: A joint that no frame has.
    """
    check_body(poses, "the poses", known=False)
    filled, times = poses.astype(np.float64), np.arange(len(poses))
    missing = np.any(np.isnan(poses), axis=-1)
    for joint in np.flatnonzero(missing.any(axis=0)):
        known = np.flatnonzero(~missing[:, joint])
        if not len(known):
            raise LiftingDataError(f"the poses: {JOINTS[joint]} is known in no frame, so there is none to fill it from")
        for axis in range(3):
            filled[:, joint, axis] = np.interp(times, known, poses[known, joint, axis])
    return filled


def up_axis(poses: Array) -> str:
    """The axis nearest to which people's trunks point, on the whole: a guess, wrong for somebody who lies.

    Args:
        poses: (T, 17, 3).

    Returns:
        One of ``UPS``.

    Raises:
        LiftingDataError: Pelvis and thorax are known in no frame, or in one place.
    """
    trunk = poses[:, _THORAX] - poses[:, _PELVIS]
    trunk = trunk[np.isfinite(trunk).all(axis=-1)]
    mean = trunk.mean(axis=0) if len(trunk) else np.zeros(3)
    if not mean.any():
        raise LiftingDataError("which axis points up cannot be told from the poses: give up")
    axis = int(np.abs(mean).argmax())
    return ("" if mean[axis] > 0 else "-") + "xyz"[axis]


def upright(poses: Array, up: str) -> NDArray[np.float64]:
    """Poses with the y axis up, turned and not mirrored.

    Args:
        poses: (T, 17, 3).
        up: The axis that points up: ``"-y"`` in camera axes (what `lift` gives), ``"y"``, ``"z"``, ...

    Returns:
        (T, 17, 3).

    Raises:
        LiftingDataError: No axis.

    Example:
        >>> upright(np.array([[[1.0, 2.0, 3.0]]]), "z").tolist()
        [[[1.0, 3.0, -2.0]]]
    """
    if up not in _TURNS:
        raise LiftingDataError(f"up={up!r}: the axis that points up, one of {', '.join(map(repr, UPS))}, is expected")
    return np.asarray(poses @ np.array(_TURNS[up], np.float64).T)


def stand(poses: Array) -> NDArray[np.float64]:
    """Poses, y up, with the lowest joint of each frame at height 0: of those whose root does not move.

    What is relative to the pelvis would hang by it and kick in the air. A jump is not seen in such poses either way.

    Args:
        poses: (T, 17, 3), y up, NaN where a joint is not known.

    Returns:
        (T, 17, 3).
    """
    low = np.where(np.isnan(poses[..., 1]), np.inf, poses[..., 1]).min(axis=1)
    return np.asarray(poses - np.where(np.isinf(low), 0, low)[:, None, None] * np.array([0.0, 1.0, 0.0]))
