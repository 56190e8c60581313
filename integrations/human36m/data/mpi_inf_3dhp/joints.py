"""The 17 joints of MPI-INF-3DHP's test set, and how they become Human3.6M's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...errors import LiftingDataError
from ..skeleton import PARENTS

NAMES = (
    "head_top", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "pelvis", "spine", "head",
)  # fmt: skip
"""Of the test set's joints, in order. Source: ``relevant`` in the data set's ``mpii_get_joints.m``."""
ORDER = (14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4)
"""Each of Human3.6M's joints among these: its thorax is the neck here, its neck (the nose) the head, its head the top.

Source: EvoSkeleton, issue 75.
"""
OF_28 = (7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6)
"""Where they stand among the 28 joints of the training set's ``annot.mat``. Source: P-STMO, ``data_to_npz_3dhp.py``."""

_BONES = ([joint for joint, parent in enumerate(PARENTS) if parent >= 0], [each for each in PARENTS if each >= 0])
_LEGS = ((4, 5, 6), (1, 2, 3))
_TRUNK = (0, 7, 8, 9, 10)
_UPRIGHT = (800.0, 2600.0)
"""Millimetres from ankle to top of the head along the bones, of anyone who can be filmed."""


def to_h36m(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (..., 17, C) in MPI-INF-3DHP's order as Human3.6M's 17 joints.

    Example:
        >>> to_h36m(np.arange(17.0)[:, None])[:3, 0].tolist()  # pelvis, right hip, right knee
        [14.0, 8.0, 9.0]
    """
    return points[..., list(ORDER), :]


def check_joint_count(count: int, where: str) -> None:
    """Refuse another set of joints than the test set's 17.

    Raises:
        LiftingDataError: It is another; the message says how the 17 are taken from 28.
    """
    if count == len(NAMES):
        return
    remedy = {
        28: f"; of the 28 of the training set's annot.mat take {list(OF_28)} (from 0), as P-STMO's preparation does",
        14: "; the 14 that PCK counts lack pelvis, spine and head, which the models need",
    }.get(count, "")
    raise LiftingDataError(
        f"{where}: {count} joints a frame, MPI-INF-3DHP's 17 are expected ({', '.join(NAMES)}){remedy}"
    )


def check_poses(poses: NDArray[np.floating], where: str) -> None:
    """Refuse 3D poses (T, 17, 3) whose joints stand in Human3.6M's order already, or that are not in millimetres.

    Raises:
        LiftingDataError: They are not, with what they look like.
    """
    if not np.isfinite(poses).all():
        bad = np.flatnonzero(~np.isfinite(poses).all(axis=(1, 2)))
        raise LiftingDataError(f"{where}: 3D poses of {len(bad)} frames that count are NaN or infinite")
    some = poses[:: max(1, len(poses) // 100)].astype(np.float64)
    mapped, as_it_is = to_h36m(some), some
    if _bones(as_it_is) < _bones(mapped):
        raise LiftingDataError(
            f"{where}: the joints stand in Human3.6M's order (pelvis, right hip, right knee, ...), as some tools sort "
            f"them; MPI-INF-3DHP's own is expected ({', '.join(NAMES[:3])}, ...): take poses[:, {_inverse()}] of both "
            "2D and 3D"
        )
    legs = np.mean([_chain(mapped, leg) for leg in _LEGS], axis=0)
    long = float(np.median(legs + _chain(mapped, _TRUNK)))
    low, high = _UPRIGHT
    if low <= long <= high:
        return
    units = {"metres": 1000.0, "centimetres": 10.0, "tenths of a millimetre": 0.1}
    likely = next((unit for unit, size in units.items() if low <= long * size <= high), None)
    raise LiftingDataError(
        f"{where}: from ankle to top of the head the person is {long:.4g} long, {low:.0f} to {high:.0f} millimetres "
        "are expected" + (f"; are these {likely}?" if likely else "; is this another unit or order of joints?")
    )


def _inverse() -> list[int]:
    return np.argsort(ORDER).tolist()


def _bones(poses: NDArray[np.floating]) -> float:
    """The length of all bones of Human3.6M's skeleton together, which joints in another order make longer."""
    return float(np.linalg.norm(poses[:, _BONES[0]] - poses[:, _BONES[1]], axis=-1).sum(axis=-1).mean())


def _chain(poses: NDArray[np.floating], joints: tuple[int, ...]) -> NDArray[np.floating]:
    found: NDArray[np.floating] = np.linalg.norm(np.diff(poses[:, list(joints)], axis=1), axis=-1).sum(axis=1)
    return found
