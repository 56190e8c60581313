"""Joint sets by name: names, left/right pairs, OKS sigmas and limbs of the data sets that are known here."""

from __future__ import annotations

from typing import Any

from .joint_set import JointError, JointSet
from .wholebody import BODY, FACE, HAND, WHOLEBODY

_PAIRS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")

COCO = BODY

CROWDPOSE = JointSet(
    name="crowdpose",
    names=(*(f"{side}_{part}" for part in _PAIRS for side in ("left", "right")), "top_head", "neck"),
    flip_pairs=tuple((left, left + 1) for left in range(0, 12, 2)),
    sigmas=tuple(sigma / 1000 for sigma in (79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89, 79, 79)),
    limbs=(
        (10, 8), (8, 6), (11, 9), (9, 7), (6, 7), (0, 6), (1, 7), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (12, 13),
        (13, 0), (13, 1),
    ),
    upper_body=(0, 1, 2, 3, 4, 5, 12, 13),
    has_area=False,
    pck="torso",
    source="CrowdPose's evaluation",
)  # fmt: skip

MPII = JointSet(
    name="mpii",
    names=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax",
        "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow",
        "left_wrist",
    ),
    flip_pairs=((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)),
    sigmas=tuple(
        sigma / 1000 for sigma in (89, 83, 107, 107, 83, 89, 26, 26, 26, 26, 62, 72, 179, 179, 72, 62)
    ),
    limbs=(
        (0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (8, 12), (12, 11), (11, 10), (8, 13),
        (13, 14), (14, 15),
    ),
    upper_body=(7, 8, 9, 10, 11, 12, 13, 14, 15),
    pck="head",
    source="mmpose's adaptation of COCO's; MPII itself publishes none, it is measured by PCK",
)  # fmt: skip

AP10K = JointSet(
    name="ap10k",
    names=(
        "left_eye", "right_eye", "nose", "neck", "root_of_tail", "left_shoulder", "left_elbow", "left_front_paw",
        "right_shoulder", "right_elbow", "right_front_paw", "left_hip", "left_knee", "left_back_paw", "right_hip",
        "right_knee", "right_back_paw",
    ),
    flip_pairs=((0, 1), (5, 8), (6, 9), (7, 10), (11, 14), (12, 15), (13, 16)),
    sigmas=tuple(
        sigma / 1000 for sigma in (25, 25, 26, 35, 35, 79, 72, 62, 79, 72, 62, 107, 87, 89, 107, 87, 89)
    ),
    limbs=(
        (0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (3, 5), (5, 6), (6, 7), (3, 8), (8, 9), (9, 10), (4, 11), (11, 12),
        (12, 13), (4, 14), (14, 15), (15, 16),
    ),
    upper_body=(0, 1, 2, 3, 5, 6, 7, 8, 9, 10),
    source="the code of AP-10K's authors (mmpose 1.x has them in another order, left and right unequal)",
)  # fmt: skip

JOINT_SETS = {joints.name: joints for joints in (COCO, CROWDPOSE, MPII, AP10K, WHOLEBODY, HAND, FACE)}


def joint_set_for(number: int) -> JointSet:
    """The joint set that a number of joints stands for where nothing else tells: COCO's for 17, CrowdPose's for 14, ...

    Raises:
        JointError: None has so many.
    """
    for joints in JOINT_SETS.values():
        if len(joints) == number:
            return joints
    known = ", ".join(f"{len(joints)} ({name})" for name, joints in JOINT_SETS.items())
    raise JointError(f"the model predicts {number} joints; known are {known}: pass joints=JointSet(...)")


def joints_of(model: Any) -> JointSet:
    """The joints that a pose model predicts: those it was trained on, else those its number of joints stands for.

    Args:
        model: A pose model, wrapped or not; from a run, a file of weights, the hub, or a prepared copy of one.

    Raises:
        JointError: It carries none, and no joint set known by name has as many.

    Example:
        >>> joints_of(create_pose_model("sdpose_s_v1")).name
        'coco'
    """
    carried = getattr(model, "joints", None)
    return joint_set_for(model.config.num_keypoints) if carried is None else JointSet.from_dict(carried)
