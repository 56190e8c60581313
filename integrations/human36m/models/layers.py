"""The parts that the lifting networks share: attention along one axis of a clip, and the block around it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

FRAMES, JOINTS = 1, 2
"""Axes of a clip's tokens (B, F, J, C)."""

BLOCK_EPS = 1e-6
"""Epsilon of the LayerNorms inside the official blocks; PyTorch's own is 1e-5."""


class Attention(nn.Module):
    """Multi-head self-attention along one axis of (B, F, J, C); nothing is mixed along the other.

    Args:
        dim: Channels of a token, C.
        heads: Attention heads.
        axis: `FRAMES` or `JOINTS`.
        dropout: Of the result.
    """

    def __init__(self, dim: int, heads: int, axis: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.axis = heads, axis
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Mix (B, F, J, C) along the axis; the same shape, for any number of frames and joints."""
        queries, keys, values = self.qkv(x).chunk(3, dim=-1)
        return self.drop(self.proj(attend(queries, keys, values, self.num_heads, self.axis)))


def attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int, axis: int) -> Tensor:
    """Scaled dot-product attention along one axis.

    Args:
        queries: (B, F, J, C).
        keys: The same shape.
        values: The same shape.
        heads: Attention heads, which divide C.
        axis: `FRAMES` or `JOINTS`.

    Returns:
        (B, F, J, C).
    """
    # (B, others, heads, along, C / heads), then one batch axis: the fused kernels take four axes.
    split = [each.movedim(axis, 2).unflatten(-1, (heads, -1)).transpose(2, 3) for each in (queries, keys, values)]
    mixed = functional.scaled_dot_product_attention(*(each.flatten(0, 1) for each in split))
    return mixed.transpose(1, 2).flatten(2).unflatten(0, split[0].shape[:2]).movedim(2, axis)


class DropPath(nn.Module):
    """Drop the whole residual of a line of tokens while training, and scale the others up.

    A line is what attention mixes: all joints of one frame, or all frames of one joint, as in the official code, whose
    batch axis counts lines.

    Args:
        rate: Share of the lines that are dropped.
        axis: The axis along which a line runs.
    """

    def __init__(self, rate: float, axis: int) -> None:
        super().__init__()
        self.rate, self.axis = rate, axis

    def forward(self, x: Tensor) -> Tensor:
        """Drop lines of (B, F, J, C)."""
        if not self.training or self.rate == 0:
            return x
        shape = list(x.shape)
        shape[self.axis] = shape[-1] = 1
        kept = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1 - self.rate)
        return x * kept / (1 - self.rate)


class Mlp(nn.Module):
    """Linear, GELU (exact), Linear on every token."""

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.act, self.drop = nn.GELU(), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same shape."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class Block(nn.Module):
    """A pre-norm transformer block whose attention runs along one axis of (B, F, J, C).

    Args:
        dim: Channels of a token, C.
        heads: Attention heads.
        hidden: Channels inside the MLP.
        axis: `FRAMES` or `JOINTS`.
        dropout: After the projection and inside the MLP.
        drop_path: Rate of `DropPath`.
    """

    def __init__(
        self, dim: int, heads: int, hidden: int, axis: int, dropout: float = 0.0, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, BLOCK_EPS)
        self.attn = Attention(dim, heads, axis, dropout)
        self.norm2 = nn.LayerNorm(dim, BLOCK_EPS)
        self.mlp = Mlp(dim, hidden, dropout)
        self.drop_path = DropPath(drop_path, axis)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, J, C) to the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def rising(last: float, depth: int) -> list[float]:
    """``depth`` rates of `DropPath` that rise in equal steps from 0 to ``last``; one alone is 0.

    Example:
        >>> rising(0.5, 3)
        [0.0, 0.25, 0.5]
    """
    return [last * index / max(depth - 1, 1) for index in range(depth)]
