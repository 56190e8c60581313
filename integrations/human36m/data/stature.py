"""The size of a person whose height is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import LiftingDataError
from .skeleton import JOINTS

_CHAINS = (("left_hip", "left_knee", "left_ankle"), ("right_hip", "right_knee", "right_ankle"))
_TRUNK = ("pelvis", "spine", "thorax", "neck", "head")
_ANKLE = 0.039
"""Height of the ankle joint above the ground, as a share of a person's."""
_UNITS = (("cm", 100), ("mm", 1000))
"""Others that heights are given in, and how many a metre has."""


def scale_to_height(poses: NDArray[np.floating], height: float) -> NDArray[np.float32]:
    """Poses of any unit in metres, such that the person is so tall in every frame.

    Legs and trunk, bone by bone, are taken for the height without what is below the ankle. That fits to some per cent;
    the lengths of the bones to each other are the model's.

    Args:
        poses: (T, 17, 3).
        height: Metres, of the person standing upright.

    Returns:
        (T, 17, 3), metres.

    Raises:
        LiftingDataError: A height that is none of a person, or a frame whose bones have no length.

    Source: the ankle's height: Drillis and Contini (1966), body segment parameters.
    """
    check_height(height)
    legs = sum(_length(poses, chain) for chain in _CHAINS) / len(_CHAINS)
    long = legs + _length(poses, _TRUNK)
    if not (long > 0).all():
        raise LiftingDataError("a pose whose legs and trunk have no length cannot be brought to a height")
    scaled: NDArray[np.float32] = (poses * ((1 - _ANKLE) * height / long)[:, None, None]).astype(np.float32)
    return scaled


def check_height(height: float) -> None:
    """Refuse metres that nobody is tall.

    Raises:
        LiftingDataError: Less than 0.3 or more than 2.8.
    """
    if not 0.3 <= height <= 2.8:
        guesses = [f"; for {height:g} {unit} give {height / of:g}" for unit, of in _UNITS if 0.5 <= height / of <= 2.8]
        raise LiftingDataError(f"a person {height:g} metres tall: 0.3 to 2.8 metres are expected{''.join(guesses)}")


def _length(poses: NDArray[np.floating], names: tuple[str, ...]) -> NDArray[np.floating]:
    chain = poses[:, [JOINTS.index(name) for name in names]]
    found: NDArray[np.floating] = np.linalg.norm(np.diff(chain, axis=1), axis=-1).sum(axis=1)
    return found
