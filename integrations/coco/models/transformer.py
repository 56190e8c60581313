"""The transformer layer of TokenPose: pre-norm, positions given to the layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .heads import LAYER_NORM_EPS


class Attention(nn.Module):
    """Multi-head self-attention with a free scale, no bias on queries, keys and values.

    Args:
        dim: Channels of a token, C.
        heads: Attention heads.
        scale: Factor on the scores before the softmax.
    """

    def __init__(self, dim: int, heads: int, scale: float) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.scale = heads, dim // heads, scale
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Let every token of (B, N, C) attend to all; the same shape."""
        parts = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))
        queries, keys, values = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(queries, keys, values, scale=self.scale)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Linear, GELU (exact), Linear on every token: (B, N, C) to the same shape."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Transform every token by itself."""
        return self.fc2(self.act(self.fc1(x)))


class TokenBlock(nn.Module):
    """One transformer layer, pre-norm.

    Positions come as an argument rather than being added between layers: so each layer's output is, as an object, the
    next one's input, which is what cycling and token pruning follow.

    Args:
        dim: Channels of a token, C.
        heads: Attention heads.
        mlp_ratio: Hidden channels of the MLP in units of C.
        scale: Factor on the attention scores.

    Source: TokenPose (ICCV 2021)
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: int, scale: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, LAYER_NORM_EPS)
        self.attn = Attention(dim, heads, scale)
        self.norm2 = nn.LayerNorm(dim, LAYER_NORM_EPS)
        self.mlp = Mlp(dim, mlp_ratio * dim)

    def forward(self, x: Tensor, pos: Tensor | None = None) -> Tensor:
        """One layer.

        Args:
            x: Tokens (B, N, C).
            pos: Added to the tokens first: (1 or B, N, C), zeros for tokens without a position. ``None``: nothing.

        Returns:
            (B, N, C).
        """
        if pos is not None:
            x = x + pos
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def init_transformer(module: nn.Module) -> None:
    """Draw every Linear of ``module`` from a normal of deviation 0.02, bias 0, and reset every LayerNorm."""
    for each in module.modules():
        if isinstance(each, nn.Linear):
            nn.init.trunc_normal_(each.weight, std=0.02)
            if each.bias is not None:
                nn.init.zeros_(each.bias)
        elif isinstance(each, nn.LayerNorm):
            nn.init.ones_(each.weight)
            nn.init.zeros_(each.bias)


def split_patches(features: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) to (B, N, ph * pw * C): patches row by row; in a patch row, column, then channel.

    Args:
        features: Images or what a backbone made of them.
        size: Height and width of a patch, ph and pw, which divide H and W.
    """
    height, width = size
    split = features.unflatten(3, (-1, width)).unflatten(2, (-1, height))
    return split.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def concat_tokens(keypoint: Tensor, visual: Tensor) -> Tensor:
    """Keypoint tokens in front of visual ones: (1, K, C) and (B, N, C) to (B, K + N, C)."""
    return torch.cat([keypoint.expand(visual.shape[0], -1, -1), visual], dim=1)
