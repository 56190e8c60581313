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

PCK_FRACTIONS = {"torso": 0.2, "head": 0.5, "bbox": 0.2}
"""How far a joint may be off, in units of what it is measured in."""


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


def pck(
    predicted: Array,
    truth: Array,
    visible: Array,
    joints: JointSet,
    box_sides: Array | None = None,
    fraction: float | None = None,
) -> float:
    """Share of labelled joints that are predicted near enough, 0 to 1, in what ``joints.pck`` measures by.

    ``torso``: the longer of the labelled diagonals from a shoulder to the hip of the other side. ``head``: from its top
    to the neck, where MPII's own PCKh takes its annotated head box. ``bbox``: the longer side of the person's box.
    Persons without the joints, or the box, do not count.

    Args:
        predicted: (N, K, 2) in pixels.
        truth: (N, K, 2) in pixels.
        visible: (N, K), above 0 where labelled.
        joints: Its names say which joints torso and head lie between.
        box_sides: (N,) longer side of each person's box in pixels, for ``bbox``.
        fraction: Of the length; by default 0.2, and 0.5 of a head.

    Returns:
        The share; 0 where no joint can be measured.

    Raises:
        ValueError: ``joints.pck`` is ``"none"``, or ``"bbox"`` without boxes.

    Source: Yang and Ramanan, "Articulated human detection with flexible mixtures of parts" (PAMI 2013), section 6, for
    the torso and the box; Andriluka et al., "2D human pose estimation" (CVPR 2014) for the head.
    """
    if joints.pck == "none" or (joints.pck == "bbox" and box_sides is None):
        raise ValueError(f"joints {joints.name!r} measure PCK by {joints.pck!r}: box_sides are needed for 'bbox'")
    labelled = visible > 0
    length = np.zeros(len(truth)) if joints.pck != "bbox" or box_sides is None else box_sides
    for one, other in joints.references:
        apart = np.linalg.norm(truth[:, one] - truth[:, other], axis=-1)
        length = np.maximum(length, apart * (labelled[:, one] & labelled[:, other]))
    measured = labelled & (length > 0)[:, None]
    reach = (PCK_FRACTIONS[joints.pck] if fraction is None else fraction) * length
    near = np.linalg.norm(predicted - truth, axis=-1) <= reach[:, None]
    return float(near[measured].mean()) if measured.any() else 0.0
