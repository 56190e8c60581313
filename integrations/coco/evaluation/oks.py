"""Object keypoint similarity, and the suppression of detections that show the same person."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


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

    Source: COCO keypoint evaluation, "Object Keypoint Similarity".
    """
    variances = (2 * np.asarray(sigmas, dtype=np.float64)) ** 2
    squared = ((others.astype(np.float64) - pose) ** 2).sum(-1)
    scale = (area + areas.astype(np.float64)) / 2 + np.spacing(1)
    return np.exp(-squared / variances / scale[:, None] / 2).mean(-1)


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
