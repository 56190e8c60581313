"""The 17 joints of Human3.6M, their mirror image, and how COCO's 17 keypoints become them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import LiftingDataError

Array = NDArray[np.float32]

JOINTS = (
    "pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "spine", "thorax",
    "neck", "head", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
)  # fmt: skip
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
"""The joint each joint hangs on; the pelvis on none."""
LEFT = (4, 5, 6, 11, 12, 13)
RIGHT = (1, 2, 3, 14, 15, 16)
BONES = tuple((parent, joint) for joint, parent in enumerate(PARENTS) if parent >= 0)

MARKERS_UNUSED = (4, 5, 9, 10, 11, 16, 20, 21, 22, 23, 24, 28, 29, 30, 31)
"""Of Human3.6M's 32 recorded joints, those that are doubles or never move."""

_MIRRORED = np.arange(len(JOINTS))
_MIRRORED[[*LEFT, *RIGHT]] = [*RIGHT, *LEFT]
MIRRORED: tuple[int, ...] = tuple(_MIRRORED.tolist())
"""The joint on the other side of the body, for each joint."""

# COCO: 0 nose, 1-2 eyes, 3-4 ears, 5-6 shoulders, 7-8 elbows, 9-10 wrists, 11-12 hips, 13-14 knees, 15-16 ankles, the
# left one first. Every joint of Human3.6M is the mean of some of these.
_FROM_COCO: tuple[tuple[int, ...], ...] = (
    (11, 12), (12,), (14,), (16,), (11,), (13,), (15,), (), (5, 6), (0,), (1, 2), (5,), (7,), (9,), (6,), (8,), (10,)
)  # fmt: skip
_SPINE, _PELVIS, _THORAX = 7, 0, 8
COCO_USED = tuple(sorted({part for parts in _FROM_COCO for part in parts}))
"""COCO's keypoints that go into some joint: all but the ears."""


def mirror(poses: Array) -> Array:
    """Poses as a mirror shows them: x negated, left and right joints exchanged.

    Works for 2D keypoints centred at x = 0 and for 3D poses in camera axes; a third channel of 2D keypoints
    (confidence) stays as it is.

    Args:
        poses: (..., 17, C), x first.

    Returns:
        A new array of the same shape; mirroring twice gives back the poses.
    """
    flipped = poses[..., list(MIRRORED), :].copy()
    flipped[..., 0] *= -1
    return flipped


def coco_to_h36m(keypoints: Array) -> Array:
    """COCO's 17 keypoints as Human3.6M's 17 joints.

    Pelvis and thorax are the middle of the hips and of the shoulders, the spine is halfway between the two, the neck
    joint (which lies near the nose in Human3.6M's 17) is the nose, and the head the middle of the eyes. A confidence,
    where there is one, is the lowest of those that went in. A model trained on other detections sees slightly other
    places, which costs accuracy that cannot be had back without training on COCO's joints.

    Args:
        keypoints: (..., 17, 2) x and y, or (..., 17, 3) with a confidence.

    Returns:
        (..., 17, 2 or 3).

    Raises:
        LiftingDataError: Another number of keypoints or of channels.

    Example:
        >>> coco_to_h36m(np.zeros((10, 17, 3), np.float32)).shape
        (10, 17, 3)
    """
    if keypoints.ndim < 2 or keypoints.shape[-2] != 17 or keypoints.shape[-1] not in (2, 3):
        raise LiftingDataError(
            f"keypoints of shape {tuple(keypoints.shape)}: (..., 17, 2) or (..., 17, 3), COCO's 17 keypoints, is "
            "expected; another skeleton has to be brought to COCO's or Human3.6M's order first"
        )
    joints = np.empty_like(keypoints)
    for joint, parts in enumerate(_FROM_COCO):
        if parts:
            joints[..., joint, :] = keypoints[..., list(parts), :].mean(axis=-2)
            joints[..., joint, 2:] = keypoints[..., list(parts), 2:].min(axis=-2)
    ends = joints[..., [_PELVIS, _THORAX], :]
    joints[..., _SPINE, :2] = ends[..., :2].mean(axis=-2)
    joints[..., _SPINE, 2:] = ends[..., 2:].min(axis=-2)
    return joints


def from_markers(positions: NDArray[np.floating]) -> Array:
    """Human3.6M's 17 joints of its 32 recorded ones: (..., 32, 3) to (..., 17, 3); 17 are passed through.

    Raises:
        LiftingDataError: Another number of joints.
    """
    count = positions.shape[-2] if positions.ndim >= 2 else 0
    if count == len(JOINTS):
        return positions.astype(np.float32)
    if count != 32:
        raise LiftingDataError(f"3D poses of {count} joints: Human3.6M's 32 recorded joints, or its 17, are expected")
    return np.delete(positions, MARKERS_UNUSED, axis=-2).astype(np.float32)
