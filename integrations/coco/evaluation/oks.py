"""Object keypoint similarity, and the suppression of detections that show the same person."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_PAIRS = 2**14
"""Pairs of joints compared at once: all of a picture with up to 30 persons; more would leave the processor's cache."""


def joint_similarity(
    squared: NDArray[np.floating], area: NDArray[np.floating], sigmas: Sequence[float]
) -> NDArray[np.float64]:
    """How near joints are to others, by the rule of OKS: 1 at the same place.

    Args:
        squared: (..., K) squared distances in pixels.
        area: (...) in square pixels.
        sigmas: Per-joint standard deviations.

    Returns:
        (..., K), in [0, 1]; the OKS of a pair is its mean over the joints that count.

    Source: COCO keypoint evaluation, "Object Keypoint Similarity".
    """
    variances = (2 * np.asarray(sigmas, dtype=np.float64)) ** 2
    return np.exp(-squared / variances / (area[..., None] + np.spacing(1)) / 2)


def oks(
    poses: NDArray[np.floating],
    others: NDArray[np.floating],
    areas: NDArray[np.floating],
    other_areas: NDArray[np.floating],
    sigmas: Sequence[float],
) -> NDArray[np.float64]:
    """OKS of poses with others, each pair judged on the mean of its two areas.

    Args:
        poses: (M, K, 2) joints in pixels.
        others: (N, K, 2).
        areas: (M,) areas of the first in square pixels.
        other_areas: (N,) areas of the others.
        sigmas: Per-joint standard deviations.

    Returns:
        (M, N) similarities in [0, 1].
    """
    squared = ((others.astype(np.float64) - poses[:, None]) ** 2).sum(-1)
    return joint_similarity(squared, (areas[:, None] + other_areas.astype(np.float64)) / 2, sigmas).mean(-1)


def oks_nms(
    poses: NDArray[np.floating],
    scores: NDArray[np.floating],
    areas: NDArray[np.floating],
    sigmas: Sequence[float],
    threshold: float = 0.9,
) -> list[int]:
    """Greedy suppression: indices of the poses to keep, best score first.

    Args:
        poses: (N, K, 2) joints of one image in pixels.
        scores: (N,).
        areas: (N,) in square pixels.
        sigmas: Per-joint standard deviations.
        threshold: A pose is dropped when its OKS with a better one is above this.

    Ties of score are broken by the poses' coordinates, so the result does not depend on the order they came in.
    """
    if len(poses) < 2:
        return list(range(len(poses)))
    flat = poses.reshape(len(poses), -1)
    order = np.lexsort((*flat.T[::-1], -scores))
    poses, areas = poses[order], areas[order]
    dropped = np.zeros(len(order), dtype=bool)
    kept: list[int] = []
    rows = max(1, _PAIRS // (len(poses) * poses.shape[1]))
    for start in range(0, len(order), rows):
        block, rest = slice(start, start + rows), slice(start, None)
        similar = oks(poses[block], poses[rest], areas[block], areas[rest], sigmas) > threshold
        for place, near in enumerate(similar, start):
            if not dropped[place]:
                kept.append(int(order[place]))
                dropped[rest] |= near
    return kept
