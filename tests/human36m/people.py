"""Persons in pixels: made-up motion as a made-up camera sees it, in Human3.6M's joints and in COCO's keypoints."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cycledistill.integrations.human36m.data.cameras import ring_of_cameras
from cycledistill.integrations.human36m.data.motion import generate_motion

_COCO = (9, 9, 9, 9, 9, 11, 14, 12, 15, 13, 16, 4, 1, 5, 2, 6, 3)
"""The joint that each of COCO's keypoints is, or is near."""
_FACE = ((0, 0), (0.06, -0.06), (-0.06, -0.06), (0.12, -0.03), (-0.12, -0.03))
"""Nose, eyes and ears from the nose, in torsos."""


def h36m_person(frames: int = 20, size: tuple[int, int] = (1000, 1000), first: int = 1) -> NDArray[np.float32]:
    """(T, 17, 2): someone who walks, waves, squats or reaches, seen whole."""
    (motion,) = generate_motion(1, frames, first=first)
    centre = motion.world[:, 0].mean(axis=0).astype(float)
    focal = 0.9 * min(size)
    camera = ring_of_cameras(centre, 1, first_angle=1.2, focal=focal, size=size)[0]
    return camera.project(camera.to_camera(motion.world)).astype(np.float32)


def coco_person(frames: int = 20, size: tuple[int, int] = (640, 480), first: int = 1) -> NDArray[np.float32]:
    """(T, 17, 3): the same in COCO's keypoints, all with a confidence of 0.9."""
    joints = h36m_person(frames, size, first)
    keypoints = joints[:, list(_COCO)]
    torso = np.linalg.norm(joints[:, 8] - joints[:, 0], axis=-1)
    keypoints[:, :5] += torso[:, None, None] * np.array(_FACE, np.float32)
    return np.concatenate([keypoints, np.full((frames, 17, 1), 0.9)], axis=-1).astype(np.float32)
