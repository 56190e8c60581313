"""What a camera is built from, checked: numbers of a shape, and rotations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...errors import LiftingDataError

Array = NDArray[np.float64]

_SKEWED = 1e-3
"""How far a rotation's product with its transpose may be off the identity: files have four digits or more."""


def check_rotation(matrix: Array, what: str) -> None:
    """Refuse a (3, 3) matrix that is no rotation, and say what it is.

    Raises:
        LiftingDataError: So it is.
    """
    off = float(np.abs(matrix @ matrix.T - np.eye(3)).max())
    determinant = float(np.linalg.det(matrix))
    if off <= _SKEWED and determinant > 0:
        return
    scale = np.sign(determinant) * np.abs(determinant) ** (1 / 3)
    if off <= _SKEWED:
        found = "a reflection: an axis points the wrong way, or two are exchanged"
    elif scale and np.abs(matrix @ matrix.T / scale**2 - np.eye(3)).max() <= _SKEWED:
        found = f"a rotation times {scale:.4g}: divide by that"
    else:
        found = f"none (its product with its transpose is {off:.2g} off the identity)"
    raise LiftingDataError(f"{what}: a rotation matrix is expected; this is {found}")


def finite_numbers(value: object, shape: tuple[int, ...], what: str, *, flat: bool = False) -> Array:
    """An array of finite numbers of a shape, from an array, a list or a tensor.

    Args:
        value: What was given.
        shape: Of the array; -1 for any number of entries.
        what: It is, for messages.
        flat: Rows and columns, (3, 1) or (1, 3), are taken as (3,) too.

    Raises:
        LiftingDataError: It is none.
    """
    try:
        plain = value.detach().cpu().numpy() if hasattr(value, "detach") else value  # a tensor
        found = np.array(plain, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        found = np.full(1, np.nan)
    found = found.reshape(-1) if flat else found
    fits = found.ndim == len(shape) and all(side in (-1, own) for side, own in zip(shape, found.shape, strict=True))
    if not fits or not np.isfinite(found).all():
        told = f"shape {found.shape}" if np.isfinite(found).all() and not fits else f"{value!r:.200}"
        expected = "finite numbers" if -1 in shape else f"finite numbers of shape {shape}"
        raise LiftingDataError(f"{what}: {told}: {expected} are expected")
    return found
