"""How near predicted joints are to labelled ones, person by person: mean OKS and PCK.

For boxes that come from the annotations, where it is known which person a prediction is of. Average precision, which
ranks and matches predictions, is in ``average_precision.py``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..data.joints import JointSet
from .oks import joint_similarity

Array = NDArray[np.float64]


def mean_oks(predicted: Array, truth: Array, visible: Array, area: Array, joints: JointSet) -> float:
    """Mean object keypoint similarity over persons: 1 is exact.

    Args:
        predicted: (N, K, 2) in pixels.
        truth: (N, K, 2) in pixels.
        visible: (N, K), above 0 where labelled.
        area: (N,) area of each person in square pixels.
        joints: Its sigmas are used.

    Returns:
        The mean over persons with a labelled joint; 0 if there is none.

    Source: the COCO keypoint evaluation.
    """
    similarity = joint_similarity(np.square(predicted - truth).sum(-1), area, joints.sigmas)
    labelled = visible > 0
    counts = labelled.sum(1)
    each = (similarity * labelled).sum(1)[counts > 0] / counts[counts > 0]
    return float(each.mean()) if each.size else 0.0


def torso_pck(predicted: Array, truth: Array, visible: Array, joints: JointSet, fraction: float = 0.2) -> float:
    """Share of labelled joints within a fraction of the torso's length, 0 to 1.

    The torso is the longer of the labelled diagonals from a shoulder to the hip of the other side; persons with neither
    do not count.

    Args:
        predicted: (N, K, 2) in pixels.
        truth: (N, K, 2) in pixels.
        visible: (N, K), above 0 where labelled.
        joints: Its names say which joints the torso lies between.
        fraction: Of the torso's length.

    Source: Yang and Ramanan, "Articulated human detection with flexible mixtures of parts" (PAMI 2013), section 6.
    """
    labelled = visible > 0
    torso = np.zeros(len(truth))
    for side, other in (("left", "right"), ("right", "left")):
        shoulder, hip = joints.names.index(f"{side}_shoulder"), joints.names.index(f"{other}_hip")
        length = np.linalg.norm(truth[:, shoulder] - truth[:, hip], axis=-1)
        torso = np.maximum(torso, length * (labelled[:, shoulder] & labelled[:, hip]))
    measured = labelled & (torso > 0)[:, None]
    near = np.linalg.norm(predicted - truth, axis=-1) <= fraction * torso[:, None]
    return float(near[measured].mean()) if measured.any() else 0.0
