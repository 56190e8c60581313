"""Tokens of several views in one sequence, and back: where views learn from one another."""

from __future__ import annotations

import torch
from torch import Tensor


def merge_views(tokens: Tensor, views: int, keypoints: int) -> Tensor:
    """Tokens of V views as one sequence a sample: all views' keypoint tokens, then all views' visual ones.

    What follows attends over all of them. After pruning the visual tokens are those of the human area.

    Args:
        tokens: (V * B, K + n, C), view after view, keypoint tokens first.
        views: V.
        keypoints: K.

    Returns:
        (B, V * K + V * n, C).

    Example:
        >>> merge_views(torch.zeros(4 * 2, 17 + 89, 192), views=4, keypoints=17).shape
        torch.Size([2, 424, 192])

    Source: PPT (ECCV 2022), section 3.3, human area fusion.
    """
    by_sample = tokens.unflatten(0, (views, -1)).transpose(0, 1)
    return torch.cat([by_sample[:, :, :keypoints].flatten(1, 2), by_sample[:, :, keypoints:].flatten(1, 2)], dim=1)


def split_keypoints(tokens: Tensor, views: int, keypoints: int) -> Tensor:
    """The keypoint tokens of :func:`merge_views`, view after view again.

    Args:
        tokens: (B, V * K + ..., C).
        views: V.
        keypoints: K.

    Returns:
        (V * B, K, C).
    """
    return tokens[:, : views * keypoints].unflatten(1, (views, keypoints)).transpose(0, 1).flatten(0, 1)
