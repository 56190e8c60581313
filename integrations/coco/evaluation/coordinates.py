"""From the numbers of a regression head to joints: positions, scores, and the average with the mirrored image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def decode_coordinates(predicted: Tensor) -> tuple[Tensor, Tensor]:
    """Joints of a regression head.

    Args:
        predicted: (B, K, 4) of an RLE head: x, y, logits of their deviations; or (B, K, 5) of a DistilPose head: x, y,
            score, deviations.

    Returns:
        Positions (B, K, 2), fractions of the image's width and height, and scores (B, K): the DistilPose score as it
        is, or the mean of 1 - deviation.

    Raises:
        ValueError: Neither 4 nor 5 numbers a joint.
    """
    _check(predicted)
    positions, rest = predicted.split([2, predicted.shape[-1] - 2], dim=-1)
    scores = rest[..., 0] if rest.shape[-1] == 3 else (1 - rest.sigmoid()).mean(dim=-1)
    return positions, scores


def flip_back_coordinates(predicted: Tensor, flip_order: Sequence[int]) -> Tensor:
    """A regression head's numbers for the mirrored image, as those of the image itself.

    Args:
        predicted: (B, K, 4) or (B, K, 5) predicted for ``image.flip(-1)``.
        flip_order: For each joint the index of its mirror partner.

    Returns:
        The same shape: x becomes 1 - x, and all numbers of left and right joints change places. Decode them before they
        are averaged with those of the image: the mean of logits is not the logit of the mean deviation.

    Raises:
        ValueError: Neither 4 nor 5 numbers a joint.
    """
    _check(predicted)
    swapped = predicted[:, list(flip_order)]
    return torch.cat([1 - swapped[..., :1], swapped[..., 1:]], dim=-1)


def _check(predicted: Tensor) -> None:
    if predicted.ndim != 3 or predicted.shape[-1] not in (4, 5):
        raise ValueError(
            f"predictions of shape {tuple(predicted.shape)}: (B, K, 4) of an RLE head or (B, K, 5) of a DistilPose "
            "head is expected"
        )
