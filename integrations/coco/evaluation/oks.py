"""Object keypoint similarity, and the suppression of detections that show the same person."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def joint_similarity(
    squared: NDArray[np.floating], area: NDArray[np.floating], sigmas: Sequence[float]
) -> NDArray[np.float64]:
    """How near joints are to others, by the rule of OKS: 1 at the same place.

    Args:
        squared: (N, K) squared distances in pixels.
        area: (N,) in square pixels.
        sigmas: Per-joint standard deviations.

    Returns:
        (N, K), in [0, 1]; the OKS of a pair is its mean over the joints that count.

    Source: COCO keypoint evaluation, "Object Keypoint Similarity".
    """
    variances = (2 * np.asarray(sigmas, dtype=np.float64)) ** 2
    return np.exp(-squared / variances / (area[:, None] + np.spacing(1)) / 2)


def oks(
    pose: NDArray[np.floating],
    others: NDArray[np.floating],
    area: float,
    areas: NDArray[np.floating],
    sigmas: Sequence[float],
) -> NDArray[np.float64]:
    """OKS of one pose with others, each pair judged on the mean of its two areas.

    Args:
        pose: (K, 2) joints in pixels.
        others: (N, K, 2).
        area: Area of the first in square pixels.
        areas: (N,) areas of the others.
        sigmas: Per-joint standard deviations.

    Returns:
        (N,) similarities in [0, 1].
    """
    squared = ((others.astype(np.float64) - pose) ** 2).sum(-1)
    return joint_similarity(squared, (area + areas.astype(np.float64)) / 2, sigmas).mean(-1)


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
    flat = poses.reshape(len(poses), -1)
    keys = (*flat.T[::-1], -scores) if flat.size else (-scores,)
    order = list(np.lexsort(keys))
    kept: list[int] = []
    while order:
        best = order.pop(0)
        kept.append(int(best))
        if order:
            similar = oks(poses[best], poses[order], float(areas[best]), areas[order], sigmas) > threshold
            order = [index for index, drop in zip(order, similar, strict=True) if not drop]
    return kept
