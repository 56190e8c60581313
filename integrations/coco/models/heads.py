"""Heads on keypoint tokens: heatmaps, or coordinates."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import TokenPoseConfig

LAYER_NORM_EPS = 1e-5
"""Of every LayerNorm in these models."""


class TokenHead(nn.Sequential):
    """Keypoint tokens (B, K, C) to (B, K, outputs): LayerNorm and Linear, twice where the hidden layer is wide enough.

    Args:
        dim: Channels of a token, C.
        hidden: Hidden channels. With C above half of them there is no hidden layer.
        outputs: Numbers per keypoint.
    """

    def __init__(self, dim: int, hidden: int, outputs: int) -> None:
        layers: list[nn.Module] = [nn.LayerNorm(dim, LAYER_NORM_EPS)]
        if dim <= hidden // 2:
            layers += [nn.Linear(dim, hidden), nn.LayerNorm(hidden, LAYER_NORM_EPS), nn.Linear(hidden, outputs)]
        else:
            layers.append(nn.Linear(dim, outputs))
        super().__init__(*layers)


class HeatmapHead(TokenHead):
    """Keypoint tokens (B, K, C) to heatmaps (B, K, H, W), without any activation.

    Source: TokenPose (ICCV 2021)
    """

    def __init__(self, dim: int, hidden: int, size: tuple[int, int]) -> None:
        super().__init__(dim, hidden, size[0] * size[1])
        self.size = size

    def forward(self, input: Tensor) -> Tensor:
        """Heatmaps of a batch of keypoint tokens."""
        return super().forward(input).unflatten(-1, self.size)


class TokenRegHead(TokenHead):
    """Keypoint tokens (B, K, C) to (B, K, 5): x and y, score, sigma of x and y.

    x and y are fractions of the image's width and height (sigmoid), the score is raw, the sigmas, in heatmap pixels,
    are positive (softplus).

    Source: DistilPose (CVPR 2023)
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(dim, hidden, 5)

    def forward(self, input: Tensor) -> Tensor:
        """Coordinates, score and sigmas of a batch of keypoint tokens."""
        place, score, sigma = super().forward(input).split([2, 1, 2], dim=-1)
        return torch.cat([place.sigmoid(), score, F.softplus(sigma)], dim=-1)


class RLEHead(TokenHead):
    """Keypoint tokens (B, K, C) to (B, K, 4): x and y as fractions of the image, and logits of their sigmas.

    Nothing bounds x and y. ``sigmoid`` of the logits is the standard deviation, in the same fractions.

    Source: RLE (ICCV 2021, arXiv 2107.11291), on the tokens of SDPose-Reg (CVPR 2024).
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(dim, hidden, 4)


def build_head(config: TokenPoseConfig) -> TokenHead:
    """The head that ``config`` describes; it reads ``config.readouts`` concatenated tokens."""
    dim = config.dim * config.readouts
    if config.head == "heatmap":
        height, width = config.heatmap_size
        return HeatmapHead(dim, config.head_hidden or height * width // 8, (height, width))
    head = TokenRegHead if config.head == "token_reg" else RLEHead
    return head(dim, config.head_hidden or 64)
