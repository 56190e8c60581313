"""From heatmaps to joints in the camera's picture, and the share of them that is right (JDR)."""

from __future__ import annotations

import torch
from torch import Tensor

HEAD_SIZE = 25.6
"""Pixels of a head in Human3.6M's pictures of 1000 x 1000, by PPT's rule: a tenth of the model's 256 pixels."""


def decode_joints(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Joints at the maxima of heatmaps, a quarter pixel towards the larger neighbour on each axis.

    As in PPT's code, a maximum in the first two or the last rows or columns stays where it is.

    Args:
        heatmaps: (B, K, H, W).

    Returns:
        Positions (B, K, 2), x and y in heatmap pixels, and scores (B, K), the maxima.

    Raises:
        ValueError: Not a tensor of four axes.
    """
    if not isinstance(heatmaps, Tensor) or heatmaps.ndim != 4:
        given = tuple(heatmaps.shape) if isinstance(heatmaps, Tensor) else type(heatmaps).__name__
        raise ValueError(f"heatmaps: {given}; one tensor (B, K, H, W) is expected, one entry of what the model returns")
    height, width = heatmaps.shape[-2:]
    scores, index = heatmaps.flatten(2).max(dim=-1)
    x, y = index % width, index // width
    padded = torch.nn.functional.pad(heatmaps, (1, 1, 1, 1)).flatten(2)

    def at(dx: int, dy: int) -> Tensor:
        return padded.gather(2, ((y + 1 + dy) * (width + 2) + x + 1 + dx)[..., None])[..., 0]

    step = torch.stack([(at(1, 0) - at(-1, 0)).sign(), (at(0, 1) - at(0, -1)).sign()], dim=-1)
    inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    return torch.stack([x, y], dim=-1) + 0.25 * step * inside[..., None], scores


def joint_detection_rate(
    predicted: Tensor, target: Tensor, head_size: float = HEAD_SIZE, share: float = 0.5, mask: Tensor | None = None
) -> Tensor:
    """JDR: which share of the joints lies within half a head of the truth.

    Args:
        predicted: (..., K, 2), pixels of the camera's picture.
        target: (..., K, 2).
        head_size: Pixels.
        share: Of the head's size that a joint may be off.
        mask: (..., K), the joints that count; default, all.

    Returns:
        (K,): the share of each joint; its mean is the published figure. NaN for a joint that never counts.

    Raises:
        ValueError: No tensors, shapes that differ, or a size that is not above 0.

    Example:
        >>> joint_detection_rate(torch.tensor([[[12.8, 0.0]]]), torch.zeros(1, 1, 2))
        tensor([1.])

    Source: PPT (ECCV 2022), section 4.3.
    """
    other = [type(each).__name__ for each in (predicted, target) if not isinstance(each, Tensor)]
    if other:
        raise ValueError(f"joints: {other[0]} is given; tensors (..., K, 2) are expected (torch.from_numpy makes them)")
    if predicted.shape != target.shape or predicted.ndim < 2 or predicted.shape[-1] != 2:
        raise ValueError(
            f"joints of shapes {tuple(predicted.shape)} and {tuple(target.shape)}: two alike, (..., K, 2), are expected"
        )
    if not (head_size > 0 and share > 0):
        raise ValueError(f"head_size={head_size}, share={share}: both must be above 0")
    counts = torch.ones(target.shape[:-1], dtype=torch.bool, device=target.device) if mask is None else mask.bool()
    if counts.shape != target.shape[:-1]:
        raise ValueError(f"a mask of shape {tuple(counts.shape)}: {tuple(target.shape[:-1])}, one a joint, is expected")
    near = ((predicted - target).norm(dim=-1) <= share * head_size) & counts
    joints = target.shape[-2]
    return near.reshape(-1, joints).sum(dim=0) / counts.reshape(-1, joints).sum(dim=0)
