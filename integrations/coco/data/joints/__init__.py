"""Joint sets: checked where they are made, known by name, or brought by users."""

from .joint_set import JointError, JointSet
from .known import AP10K, COCO, CROWDPOSE, JOINT_SETS, MPII, joint_set_for, joints_of
from .own import is_joints, joint_fields, joints_from, needs_file, other_than
from .wholebody import FACE, HAND, WHOLEBODY
from .wholebody_fields import joined_result, split_result, with_all_joints

__all__ = [
    "AP10K",
    "COCO",
    "CROWDPOSE",
    "FACE",
    "HAND",
    "JOINT_SETS",
    "MPII",
    "WHOLEBODY",
    "JointError",
    "JointSet",
    "is_joints",
    "joined_result",
    "joint_fields",
    "joint_set_for",
    "joints_from",
    "joints_of",
    "needs_file",
    "other_than",
    "split_result",
    "with_all_joints",
]
