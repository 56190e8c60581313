"""CMU motion capture as an npz file of 17-joint sequences: ``split/action/name`` -> (T, 17, 3), millimetres, y up.

There is no 2D: :func:`~cycledistill.integrations.human36m.data.clips.film` makes it. The joints stand where CMU's do,
not where Human3.6M's markers are, so figures are not comparable with published ones.

The data used in this project was obtained from mocap.cs.cmu.edu. The database was created with funding from NSF
EIA-0196217.
"""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import LiftingDataError
from .clips import Motion
from .npz import open_npz

_logger = logging.getLogger(__name__)

TEAR = 200.0
"""Millimetres between two frames (at 60 a second) beyond which a joint has jumped, not moved: 12 metres a second."""


def load_cmu(path: str | Path, split: str, shortest: int = 1, tear: float = TEAR) -> list[Motion]:
    """The sequences of a split, cut where a joint jumps, so that no window holds a tear.

    Args:
        path: The npz file.
        split: ``"train"`` or ``"test"``.
        shortest: Frames of the window. Pieces of a torn sequence that are shorter are left out; whole sequences that
            are shorter stay, and their edges are repeated.
        tear: Millimetres a joint may move from a frame to the next.

    Raises:
        LiftingDataError: The file cannot be read, or has no sequence of the split, or one of another shape.
    """
    arrays = open_npz(path)
    names = sorted(name for name in arrays if name.startswith(f"{split}/"))
    if not names:
        raise LiftingDataError(
            f"{path} has no array {split}/<action>/<name>; it has {', '.join(sorted(arrays)[:3])}, ..., "
            f"{len(arrays)} in all"
        )
    motions, left_out = [], 0
    for name in names:
        _, action, sequence = (*name.split("/"), "", "")[:3]
        poses = arrays[name]
        if poses.dtype.kind not in "fiu":
            raise LiftingDataError(f"{path}: {name} is of {poses.dtype}, numbers are expected")
        poses = poses.astype(np.float32)
        if poses.ndim != 3 or poses.shape[1:] != (17, 3) or not len(poses):
            raise LiftingDataError(f"{path}: {name} has shape {poses.shape}, (frames, 17, 3) is expected")
        pieces = whole_pieces(poses, tear)
        for number, (start, stop) in enumerate(pieces):
            if len(pieces) > 1 and stop - start < shortest:
                left_out += stop - start
                continue
            piece = sequence if len(pieces) == 1 else f"{sequence}.{number}"
            motions.append(Motion("cmu", action, piece, poses[start:stop] / 1000, sequence))
    if left_out:
        _logger.info("%s: %d frames between tears, in pieces shorter than %d, left out", split, left_out, shortest)
    return motions


def whole_pieces(poses: NDArray[np.floating], tear: float = TEAR) -> list[tuple[int, int]]:
    """Start and stop of the pieces of (T, J, 3) in which no joint moves further than ``tear`` from frame to frame."""
    jumps = np.linalg.norm(np.diff(poses, axis=0), axis=-1).max(axis=-1, initial=0.0)
    cuts = [0, *(np.flatnonzero(jumps > tear) + 1).tolist(), len(poses)]
    return list(pairwise(cuts))
