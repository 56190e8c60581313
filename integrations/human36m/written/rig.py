"""A skeleton of constant bones that moves as poses do: what BVH and glTF hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.skeleton import BONES, JOINTS, LEFT, PARENTS
from ..errors import LiftingDataError
from .rotations import best_rotations, between, unit
from .upright import check_body

Array = NDArray[np.float64]

CHILDREN = tuple(tuple(j for j, parent in enumerate(PARENTS) if parent == joint) for joint in range(len(JOINTS)))
_PELVIS, _THORAX = JOINTS.index("pelvis"), JOINTS.index("thorax")
# Joint with several children -> the two of them that are its left and its right.
_SIDES = {_PELVIS: (4, 1), _THORAX: (11, 14)}
_LEGS, _ARMS = (2, 3, 5, 6), (12, 13, 15, 16)


@dataclass(frozen=True)
class Rig:
    """Bones of constant length, and how they are turned in each frame. Metres; y up, x to the person's left.

    Attributes:
        offsets: (17, 3), each joint from its parent at rest: upright, arms stretched to the sides. Of the pelvis 0.
        root: (T, 3), where the pelvis is.
        rotations: (T, 17, 3, 3), each joint's relative to its parent's.
        error: (T, 17), how far each joint is from the pose, which constant bones cannot follow.
    """

    offsets: Array
    root: Array
    rotations: Array
    error: Array

    def positions(self) -> Array:
        """(T, 17, 3), where the joints are."""
        turned, places = self.rotations.copy(), np.repeat(self.root[:, None], len(JOINTS), axis=1)
        for parent, joint in BONES:
            places[:, joint] = places[:, parent] + turned[:, parent] @ self.offsets[joint]
            turned[:, joint] = turned[:, parent] @ self.rotations[:, joint]
        return places

    def describe(self) -> str:
        """What constant bones change, in words."""
        return (
            f"bones of constant length (the median of each) move joints by {1000 * self.error.mean():.1f} mm on "
            f"average, {1000 * self.error.max():.1f} mm at most"
        )


def fit_rig(poses: NDArray[np.floating]) -> Rig:
    """The rig that follows poses: the length of each bone is its median, each joint turned such that the next is near.

    Pelvis and thorax are turned by all three bones that hang on them. A bone's twist about itself is not in joints: of
    all rotations the least is taken.

    Args:
        poses: (T, 17, 3), metres, y up (:func:`upright`).

    Returns:
        The rig. Of a body whose bones are constant its joints are the poses', to rounding.

    Raises:
        LiftingDataError: See :func:`check_body`; or a bone that has no length in most frames.

    Example:
        >>> rig = fit_rig(stand(upright(lift(model, keypoints, settings), "-y")))
        >>> print(rig.describe())
        bones of constant length (the median of each) move joints by 4.7 mm on average, 31.2 mm at most
    """
    check_body(poses, "the poses")
    places = poses.astype(np.float64)
    offsets = _rest(places)
    root, turned = places[:, _PELVIS], np.empty((len(places), len(JOINTS), 3, 3))
    found, rotations = np.repeat(root[:, None], len(JOINTS), axis=1), np.empty_like(turned)
    for joint, parent in enumerate(PARENTS):
        above = turned[:, parent] if parent >= 0 else np.broadcast_to(np.eye(3), (len(places), 3, 3))
        if parent >= 0:
            found[:, joint] = found[:, parent] + above @ offsets[joint]
        to = places[:, CHILDREN[joint]] - found[:, [joint]]
        if joint in _SIDES:
            turned[:, joint] = best_rotations(offsets[list(CHILDREN[joint])], to)
        elif CHILDREN[joint]:
            turned[:, joint] = between(above @ offsets[CHILDREN[joint][0]], to[:, 0]) @ above
        else:
            turned[:, joint] = above
        rotations[:, joint] = np.swapaxes(above, 1, 2) @ turned[:, joint]
    return Rig(offsets, root, rotations, np.linalg.norm(found - places, axis=-1))


def _rest(places: Array) -> Array:
    """Offsets (17, 3) of a body that stands with its arms stretched out, with these bones."""
    directions = np.tile([0.0, 1.0, 0.0], (len(JOINTS), 1))
    directions[list(_LEGS)] = [0.0, -1.0, 0.0]
    for joint in _ARMS:
        directions[joint] = [1.0 if joint in LEFT else -1.0, 0.0, 0.0]
    for joint, sides in _SIDES.items():
        directions[list(CHILDREN[joint])] = _shape(places, joint, *sides)
    lengths = np.zeros(len(JOINTS))
    for parent, joint in BONES:
        lengths[joint] = np.median(np.linalg.norm(places[:, joint] - places[:, parent], axis=-1))
        if lengths[joint] < 1e-6:
            raise LiftingDataError(
                f"the poses: {JOINTS[parent]} and {JOINTS[joint]} are in one place, which is no bone"
            )
    return unit(directions) * lengths[:, None]


def _shape(places: Array, joint: int, left: int, right: int) -> Array:
    """The mean directions (3, 3) in which the children of a joint are: x to its left, y along the trunk."""
    side = unit(places[:, left] - places[:, right])
    up = places[:, _THORAX] - places[:, _PELVIS]
    up = unit(up - (up * side).sum(axis=-1, keepdims=True) * side)
    axes = np.stack([side, up, np.cross(side, up)], axis=1)
    seen = unit(places[:, CHILDREN[joint]] - places[:, [joint]])
    usable = side.any(axis=-1) & up.any(axis=-1)
    if not usable.any():
        raise LiftingDataError(
            f"the poses: {JOINTS[left]}, {JOINTS[right]} and the trunk are on one line in every frame"
        )
    shape: Array = np.einsum("tij,tnj->ni", axes[usable], seen[usable])
    for _ in range(3):  # those axes are of some of the bones; these, of all that hang on the joint
        shape = np.einsum("tji,tnj->ni", best_rotations(unit(shape), seen), seen)
    return shape
