"""Mazes, and a small transformer that answers for every cell whether it can be reached: what cycles are made for.

The answer takes as many local steps as the way is long, so a block that runs again gets further. Used by
``imagenet_deit.py`` and by the studies in ``benchmarks/study``.
"""

from __future__ import annotations

import torch
from timm.layers import Mlp  # type: ignore[attr-defined]
from timm.models.vision_transformer import Attention  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn import functional as F

FREE, WALL, START = 0, 1, 2


def boards(count: int, side: int, walls: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Boards (count, side, side) of FREE, WALL and one START, and which free cells can be reached from it."""
    device = generator.device
    wall = torch.rand(count, side, side, generator=generator, device=device) < walls
    start = torch.randint(side * side, (count,), generator=generator, device=device)
    rows = torch.arange(count, device=device)
    wall.view(count, -1)[rows, start] = False
    cells = wall.long() * WALL
    cells.view(count, -1)[rows, start] = START
    return cells, flood(cells == START, ~wall)


def flood(start: Tensor, free: Tensor) -> Tensor:
    """The free cells (B, H, W) that are joined to the start by free cells side by side."""
    steps = torch.tensor([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]], device=start.device)[None, None]
    reached, open_cells = start[:, None].float(), free[:, None].float()
    while True:
        further = (F.conv2d(reached, steps, padding=1) > 0).float() * open_cells
        if torch.equal(further, reached):
            return reached[:, 0] > 0
        reached = further


def maze_loss(output: Tensor, cells: Tensor, reached: Tensor) -> Tensor:
    """Cross-entropy of the answers (B, 2, H, W), over the free cells."""
    each = F.cross_entropy(output.float(), reached.long(), reduction="none")
    free = (cells != WALL).float()
    return (each * free).sum() / free.sum()


def share_right(output: Tensor, cells: Tensor, reached: Tensor) -> Tensor:
    """The share of each board's free cells that is told right, (B,); a board at 1 is solved."""
    free = cells != WALL
    right = (output.argmax(dim=1) == reached.long()) & free
    return right.flatten(1).sum(1) / free.flatten(1).sum(1)


class GridBlock(nn.Module):
    """A pre-norm block with a depthwise 3 x 3 convolution in front of its attention, after CPVT (arXiv 2102.10882).

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
    """What is in the cells, (B, H, W) or (B, H, W, K), to two numbers a cell, (B, 2, H, W)."""

    def __init__(self, embed: nn.Module, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embed = embed
        self.blocks = nn.ModuleList([GridBlock(width, heads) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 2)

    def forward(self, cells: Tensor) -> Tensor:
        """Answers for every cell."""
        x: Tensor = self.embed(cells)
        for block in self.blocks:
            x = block(x)
        return torch.movedim(self.head(self.norm(x)), -1, 1)
