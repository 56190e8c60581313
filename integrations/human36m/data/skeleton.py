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
# left one first. Every joint of Human3.6M is the mean of some of these, before it is moved.
_FROM_COCO: tuple[tuple[int, ...], ...] = (
    (11, 12), (12,), (14,), (16,), (11,), (13,), (15,), (5, 6, 11, 12), (5, 6), (0,), (1, 2), (5,), (7,), (9,),
    (6,), (8,), (10,),
)  # fmt: skip
_PELVIS, _SPINE, _THORAX, _NECK, _HEAD = 0, 7, 8, 9, 10
COCO_MAPPINGS = ("extrapolated", "midpoints")
COCO_USED = tuple(sorted({part for parts in _FROM_COCO for part in parts}))
"""COCO's keypoints that some joint cannot do without: all but the ears."""
COCO_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip

HALPE_NAMES = (
    *COCO_NAMES, "head", "neck", "hip", "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe",
    "left_heel", "right_heel",
)  # fmt: skip
# Halpe-26 has COCO's 17 first, and joints of its own for pelvis, thorax and head.
_FROM_HALPE: tuple[tuple[int, ...], ...] = (
    (19,), (12,), (14,), (16,), (11,), (13,), (15,), (18, 19), (18,), (0,), (17,), (5,), (7,), (9,), (6,), (8,), (10,),
)  # fmt: skip
HALPE_USED = tuple(sorted({part for parts in _FROM_HALPE for part in parts}))


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


def coco_to_h36m(keypoints: Array, mapping: str = "extrapolated") -> Array:
    """COCO's 17 keypoints as Human3.6M's 17 joints.

    Both have pelvis and limbs where COCO has them. ``"extrapolated"`` puts the others where Human3.6M's markers are:
    the head above the eyes by as much as these are above the nose, the neck joint below the nose, the thorax above the
    shoulders. The head bone is then, as Human3.6M's, some 0.2 of the torso (pelvis to thorax). ``"midpoints"`` takes
    means of keypoints alone: thorax and spine are those of shoulders and torso, the neck joint is the nose, the head
    the middle of the eyes, which makes the head bone a third of that. Which one a model wants, its convention says. A
    confidence, where there is one, is the lowest of those that went in.

    Args:
        keypoints: (..., 17, 2) x and y, or (..., 17, 3) with a confidence.
        mapping: ``"extrapolated"`` or ``"midpoints"``.

    Returns:
        (..., 17, 2 or 3).

    Raises:
        LiftingDataError: Another number of keypoints or of channels, or an unknown mapping.

    Example:
        >>> coco_to_h36m(np.zeros((10, 17, 3), np.float32)).shape
        (10, 17, 3)

    Source: ``"extrapolated"``: MHFormer's ``demo/lib/preprocess.py``, as its and HoT's demonstrations use it;
    ``"midpoints"``: MotionBERT's ``dataset_action.py``.
    """
    if keypoints.ndim < 2 or keypoints.shape[-2] != 17 or keypoints.shape[-1] not in (2, 3):
        raise LiftingDataError(
            f"keypoints of shape {tuple(keypoints.shape)}: (..., 17, 2) or (..., 17, 3), COCO's 17 keypoints, is "
            "expected; another skeleton has to be brought to COCO's or Human3.6M's order first"
        )
    if mapping not in COCO_MAPPINGS:
        raise LiftingDataError(f"mapping={mapping!r}: one of {', '.join(map(repr, COCO_MAPPINGS))} is expected")
    joints = np.empty_like(keypoints)
    for joint, parts in enumerate(_FROM_COCO):
        joints[..., joint, :] = keypoints[..., list(parts), :].mean(axis=-2)
        joints[..., joint, 2:] = keypoints[..., list(parts), 2:].min(axis=-2)
    if mapping == "extrapolated":
        _extrapolate(joints, keypoints)
    return joints


def halpe_to_h36m(keypoints: Array) -> Array:
    """Halpe's 26 keypoints, as AlphaPose detects them, as Human3.6M's 17 joints.

    Args:
        keypoints: (..., 26, 2 or 3).

    Returns:
        (..., 17, 2 or 3); a confidence is the lowest of those that went in.

    Source: MotionBERT's ``dataset_wild.py``.
    """
    joints = np.empty((*keypoints.shape[:-2], len(JOINTS), keypoints.shape[-1]), keypoints.dtype)
    for joint, parts in enumerate(_FROM_HALPE):
        joints[..., joint, :] = keypoints[..., list(parts), :].mean(axis=-2)
        joints[..., joint, 2:] = keypoints[..., list(parts), 2:].min(axis=-2)
    return joints


def _extrapolate(joints: Array, keypoints: Array) -> None:
    """Move spine, thorax, neck and head to where Human3.6M has them."""

    def middle(*parts: int) -> Array:
        found: Array = keypoints[..., list(parts), :2].mean(axis=-2)
        return found

    nose, eyes, shoulders = middle(0), middle(1, 2), middle(5, 6)
    above = nose[..., 1] - eyes[..., 1]  # the eyes above the nose
    joints[..., _HEAD, 0], joints[..., _HEAD, 1] = middle(1, 2, 3, 4)[..., 0], eyes[..., 1] - above
    joints[..., _NECK, :2] = nose + (shoulders - nose) / 4
    joints[..., _THORAX, :2] = shoulders + (nose - shoulders) / 3
    ends = joints[..., [_PELVIS, _THORAX], 0].mean(axis=-1)
    joints[..., _SPINE, 0] += 2 * (joints[..., _SPINE, 0] - ends)
    joints[..., _THORAX, 1] += above * 2 / 3
    for joint, parts in ((_HEAD, [0, 1, 2, 3, 4]), (_NECK, [0, 5, 6]), (_THORAX, [0, 1, 2, 5, 6])):
        joints[..., joint, 2:] = keypoints[..., parts, 2:].min(axis=-2)


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
