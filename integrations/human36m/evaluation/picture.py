"""Poses in picture units, as MotionBERT gives them, and how many metres such a unit is.

Such a pose lies in the picture: x and y are where a joint is seen, the depth is in the same unit at the root's
distance, and the unit is half a picture's width. Where camera and root are known a unit is a number of metres in each
frame, and MotionBERT's authors measure so: prediction and truth are both in picture units, both times that number.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..data.clips import Clip
from ..errors import LiftingDataError


def to_picture(clip: Clip) -> tuple[Clip, NDArray[np.float32]]:
    """A clip with its truth in picture units, and the metres that a unit is in each frame.

    The camera is taken for a pinhole.

    Args:
        clip: With its camera and root.

    Returns:
        The clip, its targets (T, 17, 3) in picture units, relative to the root; and (T,), metres a unit.

    Raises:
        LiftingDataError: The camera is not known, or the person is not in front of it.

    Source: the labels of MotionBERT's ``datareader_h36m.py``; the number of metres is its ``2.5d_factor``, of which
    mmpose's ``camera_to_image_coord`` is a public definition: a pixel is depth over focal length.
    """
    if clip.camera is None or clip.root is None:
        raise LiftingDataError(
            f"{clip.name}: the weights give poses in picture units (MotionBERT's), which become metres by the camera "
            "and the person's distance, and this clip has none; measure them on clips of Human3.6M or of film(...)"
        )
    points = clip.targets + clip.root[:, None]
    if not (points[..., 2] > 0).all():
        raise LiftingDataError(f"{clip.name}: the person is not in front of the camera, so there is no picture of it")
    half, depth = clip.camera.size[0] / 2, clip.root[:, 2]
    seen = clip.camera.focal * points[..., :2] / points[..., 2:]
    metres = half * depth / clip.camera.focal[0]
    targets = np.concatenate([(seen - seen[:, :1]) / half, clip.targets[..., 2:] / metres[:, None, None]], axis=-1)
    return replace(clip, targets=targets.astype(np.float32)), metres.astype(np.float32)
