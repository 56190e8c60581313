"""Poses as BVH, the text form of motion that animation programs read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cycledistill.files import atomic_write

from ..data.pose_files import check_target
from ..data.skeleton import JOINTS
from ..data.timing import check_rate
from ..errors import LiftingDataError
from .rig import CHILDREN, Rig, fit_rig
from .rotations import angles_zxy

_UNITS = {"m": 1.0, "cm": 100.0, "mm": 1000.0}
_TIP = 0.25
"""Length of the End Site of hands, feet and head, of which poses know nothing, as a share of the bone before it."""
_ROTATIONS = "Zrotation Xrotation Yrotation"


def write_bvh(poses: NDArray[np.floating], path: str | Path, frame_rate: float, *, unit: str = "cm") -> Rig:
    """Write poses as BVH: a hierarchy of the 17 joints, and its angles in each frame.

    BVH has bones of constant length, so the joints of poses, whose bones are not, are moved: see ``error`` of the
    result. Angles are in degrees, of Rz Rx Ry.

    Args:
        poses: (T, 17, 3), metres, y up (:func:`upright`).
        path: ``.bvh``.
        frame_rate: Frames a second.
        unit: Of lengths in the file, which BVH does not say: ``"cm"``, which most programs expect, ``"m"`` or ``"mm"``.

    Returns:
        What was written.

    Raises:
        LiftingDataError: Poses that are none or have joints that are not known (:func:`fit_rig`); another suffix or
            unit, no such rate; or the file cannot be written.

    Example:
        >>> rig = write_bvh(upright(poses, "-y"), "walk.bvh", 50)
        >>> float(rig.error.max())  # metres
        0.031
    """
    check_target(path, (".bvh",))
    check_rate(frame_rate)
    if unit not in _UNITS:
        raise LiftingDataError(f"unit={unit!r}: one of {', '.join(map(repr, _UNITS))} is expected")
    rig = fit_rig(poses)
    angles = np.degrees(angles_zxy(rig.rotations))
    order = list(_depth_first(0))
    rows = np.concatenate([rig.root * _UNITS[unit], angles[:, order].reshape(len(poses), -1)], axis=1)
    motion = ["MOTION", f"Frames: {len(rows)}", f"Frame Time: {1 / frame_rate:.9f}"]
    motion += [" ".join(f"{value:.6f}" for value in row) for row in rows]
    text = "\n".join([*_hierarchy(rig.offsets * _UNITS[unit], 0, 0), *motion]) + "\n"
    try:
        atomic_write(path, lambda file: file.write_text(text, encoding="ascii", newline="\n"))
    except OSError as error:
        raise LiftingDataError(f"{path} cannot be written: {error}") from error
    return rig


def _depth_first(joint: int) -> Iterator[int]:
    yield joint
    for child in CHILDREN[joint]:
        yield from _depth_first(child)


def _hierarchy(offsets: NDArray[np.float64], joint: int, depth: int) -> Iterator[str]:
    indent, inner = "\t" * depth, "\t" * (depth + 1)
    if joint == 0:
        yield "HIERARCHY"
    yield f"{indent}{'JOINT' if depth else 'ROOT'} {JOINTS[joint]}"
    yield indent + "{"
    yield inner + _offset(offsets[joint])
    yield (
        f"{inner}CHANNELS 3 {_ROTATIONS}" if depth else f"{inner}CHANNELS 6 Xposition Yposition Zposition {_ROTATIONS}"
    )
    for child in CHILDREN[joint]:
        yield from _hierarchy(offsets, child, depth + 1)
    if not CHILDREN[joint]:
        yield from (f"{inner}End Site", inner + "{", f"{inner}\t{_offset(_TIP * offsets[joint])}", inner + "}")
    yield indent + "}"


def _offset(vector: NDArray[np.float64]) -> str:
    return "OFFSET " + " ".join(f"{value:.6f}" for value in vector)
