"""Positions of patches as sines and cosines of their row and column."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SINE_EPS = 1e-6
"""Keeps the division by the number of rows safe; part of the published tables."""


def sine_positions(rows: int, columns: int, dim: int) -> Tensor:
    """The fixed table of a grid of patches, row-major.

    The first half of the channels encodes the row, the second the column, each counted from 1 and scaled to (0, 2 pi],
    as interleaved sines and cosines of wavelengths from 2 pi to 10,000 times that.

    Args:
        rows: Rows of the grid.
        columns: Columns of the grid.
        dim: Channels, divisible by 4.

    Returns:
        (1, rows * columns, dim), float32.

    Raises:
        ValueError: ``dim`` is not divisible by 4.

    Example:
        >>> sine_positions(16, 16, 192).shape
        torch.Size([1, 256, 192])

    Source: DETR (ECCV 2020) as used by TokenPose (ICCV 2021)
    """
    if dim % 4:
        raise ValueError(f"dim={dim}: the sine table needs a number of channels divisible by 4")
    y = _encode(rows, dim // 2)[:, None].expand(rows, columns, -1)
    x = _encode(columns, dim // 2)[None].expand(rows, columns, -1)
    return torch.cat([y, x], dim=-1).flatten(0, 1)[None].to(torch.float32)


def _encode(count: int, channels: int) -> Tensor:
    place = torch.arange(1, count + 1, dtype=torch.float64) / (count + SINE_EPS) * (2 * math.pi)
    pair = torch.arange(channels // 2, dtype=torch.float64)
    angle = place[:, None] / 10000 ** (2 * pair / channels)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
