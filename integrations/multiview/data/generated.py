"""Generated moments: a figure of sticks in the middle of a ring of cameras, painted when a picture is asked for.

The motion is made by formulas and the figure by lines, so no figure measured on it says anything about people; it
shows that a run, and the chain from pictures to poses, works. The same seed gives the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from cycledistill.integrations.human36m.data.cameras import ring_of_cameras
from cycledistill.integrations.human36m.data.motion import generate_motion
from cycledistill.integrations.human36m.data.skeleton import BONES
from cycledistill.integrations.human36m.errors import LiftingDataError

from .moments import Array, Moment, MultiViewSet, View, labelled_view, seen_by

_MIDDLE = np.array([0.0, 1.0, 0.0])
_A_FIGURE, _STEP = 8, 25
_LINE, _JOINT = 0.02, 0.018
"""Thickness of limbs and radius of joints, in units of the figure's height in the picture."""
_SUBPIXEL = 4


def generate_moments(count: int, cameras: int = 4, size: int = 256, *, first: int = 0, seed: int = 0) -> MultiViewSet:
    """Moments with a figure each, within a quarter of a metre of the middle of the ring.

    Args:
        count: Moments; eight come from each generated figure.
        cameras: Evenly on a circle of 5.2 m, the same in all moments.
        size: Side of a picture in pixels.
        first: Number of the first figure; take disjoint ranges for training and testing.
        seed: Of all that is drawn.

    Raises:
        LiftingDataError: Fewer than one moment, two cameras or 32 pixels.

    Example:
        >>> found = generate_moments(16, cameras=4)
        >>> found.read(found.moments[0].views["0"]).shape
        (256, 256, 3)
    """
    if count < 1 or cameras < 2 or size < 32:
        raise LiftingDataError(
            f"{count} moments of {cameras} cameras, {size} pixels: at least 1, 2 and 32 are expected"
        )
    ring = ring_of_cameras(_MIDDLE, cameras, first_angle=0.3, focal=2.2 * size, size=(size, size))
    motions = generate_motion(-(-count // _A_FIGURE), _A_FIGURE * _STEP, seed=seed, first=first)
    poses = np.concatenate([motion.world[::_STEP] for motion in motions])[:count].astype(np.float64)
    moved = np.random.default_rng((seed, first)).uniform(-0.25, 0.25, (count, 1, 2))
    poses[..., [0, 2]] += moved - poses[:, :1, [0, 2]]
    painted = _Painted(size)
    moments = []
    for number, pose in enumerate(poses):
        views: dict[str, View] = {}
        for camera in ring:
            joints = seen_by(camera, pose)
            view = None if joints is None else labelled_view(camera, f"{number}/{camera.name}", joints)
            if view is not None and joints is not None:
                views[camera.name], painted.joints[view.picture] = view, joints[:, :2]
                painted.depths[view.picture] = camera.to_camera(pose)[:, 2]
        moments.append(Moment(f"generated {number}", views, pose))
    return MultiViewSet(moments, painted)


@dataclass
class _Painted:
    """Pictures of figures, painted anew each time."""

    size: int
    joints: dict[str, Array] = field(default_factory=dict)
    depths: dict[str, Array] = field(default_factory=dict)

    def read(self, name: str) -> NDArray[np.uint8]:
        joints, depths = self.joints[name], self.depths[name]
        height = float(np.ptp(joints, axis=0).max())
        picture = np.full((self.size, self.size, 3), 96, np.uint8)
        far_first = sorted(range(len(BONES)), key=lambda bone: -float(depths[list(BONES[bone])].mean()))
        for bone in far_first:
            parent, joint = BONES[bone]
            start, end = _sixteenths(joints[parent]), _sixteenths(joints[joint])
            thick = max(round(_LINE * height), 1)
            cv2.line(picture, start, end, _colour(joint), thick, cv2.LINE_AA, _SUBPIXEL)
        for joint in np.argsort(-depths).tolist():
            radius = max(round(_JOINT * height * 2**_SUBPIXEL), 2**_SUBPIXEL)
            cv2.circle(picture, _sixteenths(joints[joint]), radius, _colour(joint), -1, cv2.LINE_AA, _SUBPIXEL)
        return picture


def _sixteenths(point: Array) -> tuple[int, int]:
    x, y = np.round(point * 2**_SUBPIXEL).astype(int).tolist()
    return x, y


def _colour(joint: int) -> tuple[int, int, int]:
    """A colour of its own for each joint."""
    red, green, blue = (np.array([67, 137, 219]) * (joint + 1) + 40) % 256
    return int(red), int(green), int(blue)
