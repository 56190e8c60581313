"""A transformer on a grid of cells that knows its neighbours, and boards of any size."""

from __future__ import annotations

import torch
from timm.layers import Mlp
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from ..plan import Network


class GridBlock(nn.Module):
    """A pre-norm block with a depthwise 3 x 3 convolution in front of its attention, as in CPVT (arXiv 2102.10882).

    The convolution tells where a cell is among its neighbours, so no positions are added, and a larger board is served.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm0, self.local = nn.LayerNorm(width), nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads, qkv_bias=True)
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width, 3 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, H, W, C)."""
        x = x + self.local(self.norm0(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self.attn(self.norm1(x).flatten(1, 2)).view_as(x)
        return x + self.mlp(self.norm2(x))


class GridNetwork(nn.Module):
    """Cells (B, H, W) or (B, H, W, K) to ``outputs`` numbers a cell, (B, outputs, H, W)."""

    def __init__(self, embed: nn.Module, size: Network, outputs: int) -> None:
        super().__init__()
        self.embed = embed
        self.blocks = nn.ModuleList([GridBlock(size.width, size.heads) for _ in range(size.depth)])
        self.norm, self.head = nn.LayerNorm(size.width), nn.Linear(size.width, outputs)

    def forward(self, cells: Tensor) -> Tensor:
        """Answers for every cell."""
        x: Tensor = self.embed(cells)
        for block in self.blocks:
            x = block(x)
        answers: Tensor = self.head(self.norm(x))
        return torch.movedim(answers, -1, 1)
