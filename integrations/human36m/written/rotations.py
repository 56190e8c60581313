"""Rotations of skeletons: between directions, of shapes, as quaternions and as angles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cycledistill.versions import require

require("scipy")

Array = NDArray[np.float64]

_NONE = 1e-9
"""Below this a vector has no direction."""


def unit(vectors: Array) -> Array:
    """Vectors (..., 3) of length 1; those without a length stay 0."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    found: Array = np.where(length > _NONE, vectors / np.maximum(length, _NONE), 0.0)
    return found


def between(start: Array, end: Array) -> Array:
    """The least rotations (..., 3, 3) that turn one direction into another; none where either has no length.

    Of opposite directions one of the half turns.

    Args:
        start: (..., 3).
        end: (..., 3).
    """
    start, end = np.broadcast_arrays(unit(start), unit(end))
    cosine = (start * end).sum(axis=-1)[..., None, None]
    axis = np.cross(start, end)
    across = np.zeros((*axis.shape, 3))
    across[..., [2, 0, 1], [1, 2, 0]], across[..., [1, 2, 0], [2, 0, 1]] = axis, -axis
    turned = np.eye(3) + across + across @ across / np.maximum(1 + cosine, _NONE)
    aside = unit(np.cross(start, np.eye(3)[np.abs(start).argmin(axis=-1)]))
    half = 2 * aside[..., :, None] * aside[..., None, :] - np.eye(3)
    there = (np.any(start, axis=-1) & np.any(end, axis=-1))[..., None, None]
    return np.where(there, np.where(cosine < -1 + 1e-8, half, turned), np.eye(3))


def best_rotations(shape: Array, seen: Array) -> Array:
    """The rotations (T, 3, 3) that bring the points of a shape (N, 3) nearest to those of each frame (T, N, 3).

    Source: Kabsch (1976), A solution for the best rotation to relate two sets of vectors.
    """
    left, _, right = np.linalg.svd(np.einsum("tni,nj->tij", seen, shape))
    proper = np.ones((len(seen), 1, 3))
    proper[:, 0, 2] = np.sign(np.linalg.det(left @ right))
    found: Array = (left * proper) @ right
    return found


def quaternions(rotations: Array) -> Array:
    """Rotations over time (T, ..., 3, 3) as unit quaternions (T, ..., 4), x, y, z, w, without jumps of the sign."""
    found: Array = Rotation.from_matrix(rotations.reshape(-1, 3, 3)).as_quat().reshape(*rotations.shape[:-2], 4)
    found[0] *= np.where(found[0, ..., 3:] < 0, -1, 1)
    same = (found[1:] * found[:-1]).sum(axis=-1, keepdims=True)
    found[1:] *= np.cumprod(np.where(same < 0, -1, 1), axis=0)
    return found


def angles_zxy(rotations: Array) -> Array:
    """Rotations over time (T, ..., 3, 3) as angles (T, ..., 3) in radians: z, x, y, of Rz @ Rx @ Ry, without jumps of
    a whole turn.
    """  # noqa: D205
    r = np.moveaxis(rotations, (-2, -1), (0, 1))
    locked = np.abs(r[2, 1]) > 1 - 1e-12  # then z and y turn about one axis, and all is z
    z = np.where(locked, np.arctan2(r[1, 0], r[0, 0]), np.arctan2(-r[0, 1], r[1, 1]))
    y = np.where(locked, 0.0, np.arctan2(-r[2, 0], r[2, 2]))
    return np.unwrap(np.stack([z, np.arcsin(r[2, 1].clip(-1, 1)), y], axis=-1), axis=0)
