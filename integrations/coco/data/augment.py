"""Random crops of a person: one affine matrix holds shift, flip, half body, scale and rotation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .annotations import PIXEL_STD, Person
from .joints import JointSet

_HALF_BODY_PADDING = 1.5


@dataclass(frozen=True)
class Augmentation:
    """How much crops vary while training. The defaults are SDPose's (the transforms of mmpose 0.29).

    Attributes:
        shift: Largest move of the crop, as a fraction of its size, drawn uniformly.
        shift_probability: How often it moves.
        flip_probability: How often it is mirrored.
        half_body_joints: A half body is only cut out when more joints than this are labelled.
        half_body_probability: How often it is then.
        scale: Standard deviation of the size factor 1 + N(0, 1), which is clipped to 1 +- ``scale``.
        rotation: Standard deviation of the angle in degrees; clipped to twice that.
        rotation_probability: How often it is rotated.
    """

    shift: float = 0.16
    shift_probability: float = 0.3
    flip_probability: float = 0.5
    half_body_joints: int = 8
    half_body_probability: float = 0.3
    scale: float = 0.35
    rotation: float = 45.0
    rotation_probability: float = 0.6


NO_AUGMENTATION = Augmentation(0, 0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Crop:
    """One crop: where it is cut, and what its joints are.

    Attributes:
        matrix: (2, 3) affine map from picture pixels to input pixels, the flip included.
        joints: (K, 2) in input pixels.
        visible: (K,) 1 where labelled.
    """

    matrix: NDArray[np.float32]
    joints: NDArray[np.float32]
    visible: NDArray[np.float32]


def crop_matrix(
    center: NDArray[np.floating],
    scale: NDArray[np.floating],
    rotation: float,
    image_size: tuple[int, int],
) -> NDArray[np.float64]:
    """The (2, 3) map that puts a rotated box of width ``scale[0]`` (units of 200 pixels) upright into the input.

    Args:
        center: Box centre in picture pixels, (2,).
        scale: Box width and height in units of 200 pixels; the width decides.
        rotation: Angle in degrees.
        image_size: Height and width of the input.
    """
    height, width = image_size
    factor = width / (float(scale[0]) * PIXEL_STD)
    angle = np.deg2rad(rotation)
    cosine, sine = factor * np.cos(angle), factor * np.sin(angle)
    turn = np.array([[cosine, sine], [-sine, cosine]])
    shift = np.array([width / 2, height / 2]) - turn @ np.asarray(center, dtype=np.float64)
    return np.concatenate([turn, shift[:, None]], axis=1)


def draw_crop(
    person: Person,
    width: int,
    joints: JointSet,
    image_size: tuple[int, int],
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> Crop:
    """Draw one crop of a person.

    Args:
        person: Whom to cut out.
        width: Width of the picture in pixels (a mirrored picture is measured from its other side).
        joints: The joint set.
        image_size: Height and width of the input.
        augmentation: What may vary.
        rng: Random numbers of this person and epoch.
    """
    center, scale = person.center.astype(np.float64), person.scale.astype(np.float64)
    place, visible = person.joints.astype(np.float64), person.visible
    if rng.random() < augmentation.shift_probability:
        center = center + rng.uniform(-1, 1, 2) * augmentation.shift * scale * PIXEL_STD
    flipped = rng.random() < augmentation.flip_probability
    if flipped:
        order = list(joints.flip_order)
        place, visible = place[order], visible[order]
        place = np.stack([width - 1 - place[:, 0], place[:, 1]], axis=1)
        center = np.array([width - 1 - center[0], center[1]])
    enough = visible.sum() > augmentation.half_body_joints
    if enough and rng.random() < augmentation.half_body_probability:
        center, scale = _half_body(place, visible, joints, image_size, rng) or (center, scale)
    factor = np.clip(1 + augmentation.scale * rng.standard_normal(), 1 - augmentation.scale, 1 + augmentation.scale)
    limit = 2 * augmentation.rotation
    angle = float(np.clip(augmentation.rotation * rng.standard_normal(), -limit, limit))
    rotation = angle if rng.random() <= augmentation.rotation_probability and limit > 0 else 0.0
    matrix = crop_matrix(center, scale * factor, rotation, image_size)
    placed = place @ matrix[:, :2].T + matrix[:, 2]
    if flipped:
        matrix = np.stack([-matrix[:, 0], matrix[:, 1], matrix[:, 0] * (width - 1) + matrix[:, 2]], axis=1)
    return Crop(matrix.astype(np.float32), placed.astype(np.float32), visible)


def _half_body(
    place: NDArray[np.float64],
    visible: NDArray[np.float32],
    joints: JointSet,
    image_size: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    if not joints.upper_body or not joints.lower_body:  # it is not known what would be half of it
        return None
    upper = [index for index in joints.upper_body if visible[index] > 0]
    lower = [index for index in joints.lower_body if visible[index] > 0]
    prefers_upper = rng.standard_normal() < 0.5
    chosen = upper if (prefers_upper and len(upper) > 2) or len(lower) <= 2 else lower
    if len(chosen) < 2:
        return None
    points = place[chosen]
    width, height = points.max(0) - points.min(0)
    aspect = image_size[1] / image_size[0]
    size = np.array([max(width, aspect * height), max(height, width / aspect)])
    return points.mean(0), size / PIXEL_STD * _HALF_BODY_PADDING
