"""The parts of the multi-view pose model: backbone, transformer layer, head and table of positions, as in TokenPose."""

from __future__ import annotations

import math

import torch
from timm.models.resnet import Bottleneck
from torch import Tensor, nn
from torch.nn import functional

LAYER_NORM_EPS = 1e-5
_SINE_EPS = 1e-6  # part of the published table


class Stem(nn.Module):
    """Two strided 3x3 convolutions and four bottlenecks: views (B, 3, H, W) to (B, 4 * width, H/4, W/4).

    Keys are HRNet's, so its ImageNet weights fit a width of 64.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = nn.Conv2d(64, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64)
        wider = nn.Sequential(nn.Conv2d(64, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width))
        rest = (Bottleneck(4 * width, width) for _ in range(3))
        self.layer1 = nn.Sequential(Bottleneck(64, width, downsample=wider), *rest)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Features of a batch of views."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        features: Tensor = self.layer1(x)
        return features


class TokenAttention(nn.Module):
    """Multi-head self-attention on (B, N, C) without a bias on queries, keys and values.

    The scores are scaled by the root of all channels, not of one head's, as in the published multi-view model.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.scale = heads, dim // heads, dim**-0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Let every token attend to all; the same shape."""
        split = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        queries, keys, values = split.unbind(0)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, scale=self.scale)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class TokenMlp(nn.Module):
    """Linear, GELU (exact), Linear on every token."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) to the same shape."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class TokenBlock(nn.Module):
    """One transformer layer, pre-norm, on (B, N, C); positions (1 or B, N, C), if given, are added first.

    They come as an argument so that ``wrap_pruning`` can hand on those of the tokens that are left.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, LAYER_NORM_EPS), nn.LayerNorm(dim, LAYER_NORM_EPS)
        self.attn, self.mlp = TokenAttention(dim, heads), TokenMlp(dim, mlp_ratio * dim)

    def forward(self, x: Tensor, pos: Tensor | None = None) -> Tensor:
        """One layer; the same shape."""
        if pos is not None:
            x = x + pos
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class HeatmapHead(nn.Sequential):
    """Keypoint tokens (B, K, C) to heatmaps (B, K, H, W): LayerNorm and Linear, twice if the hidden layer is wide."""

    def __init__(self, dim: int, hidden: int, size: tuple[int, int]) -> None:
        layers: list[nn.Module] = [nn.LayerNorm(dim, LAYER_NORM_EPS)]
        if dim <= hidden // 2:
            layers += [nn.Linear(dim, hidden), nn.LayerNorm(hidden, LAYER_NORM_EPS)]
        layers.append(nn.Linear(hidden if len(layers) > 1 else dim, size[0] * size[1]))
        super().__init__(*layers)
        self.size = size

    def forward(self, input: Tensor) -> Tensor:
        """Heatmaps of a batch of keypoint tokens."""
        return super().forward(input).unflatten(-1, self.size)


def sine_positions(rows: int, columns: int, dim: int) -> Tensor:
    """The fixed table of a grid of patches, (1, rows * columns, dim), row by row.

    The first half of the channels holds sines and cosines of the row, the second those of the column.

    Source: DETR (ECCV 2020) as used by TokenPose (ICCV 2021).
    """
    y, x = (_waves(count, dim // 2) for count in (rows, columns))
    both = [y[:, None].expand(rows, columns, -1), x[None].expand(rows, columns, -1)]
    return torch.cat(both, dim=-1).flatten(0, 1)[None].float()


def _waves(count: int, channels: int) -> Tensor:
    place = torch.arange(1, count + 1, dtype=torch.float64) / (count + _SINE_EPS) * (2 * math.pi)
    pair = torch.arange(channels // 2, dtype=torch.float64)
    angle = place[:, None] / 10000 ** (2 * pair / channels)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
