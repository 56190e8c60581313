"""What tasks of joints share: a small network with a token a joint, heatmaps, and how joints are found again."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn import functional as F

from ..plan import Network


class KeypointNetwork(nn.Module):
    """Patches and a token a joint through one stack; each joint's token gives its heatmap, as in TokenPose.

    Args:
        size: Of the stack.
        channels: Of the pictures.
        side: Their pixels.
        patch: Pixels of a patch's side.
        joints: How many.
        cells: Of a side of the heatmaps.
    """

    def __init__(self, size: Network, *, channels: int, side: int, patch: int, joints: int, cells: int) -> None:
        super().__init__()
        self.joints, self.cells = joints, cells
        self.patch_embed = nn.Conv2d(channels, size.width, patch, patch)
        self.positions = nn.Parameter(0.3 * torch.randn(1, (side // patch) ** 2, size.width))
        self.joint_tokens = nn.Parameter(0.3 * torch.randn(1, joints, size.width))
        self.blocks = nn.Sequential(*(Block(size.width, size.heads, 3.0, qkv_bias=True) for _ in range(size.depth)))
        self.norm, self.head = nn.LayerNorm(size.width), nn.Linear(size.width, cells * cells)

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures (B, C, S, S) to heatmaps (B, K, H, H)."""
        patches = self.patch_embed(pictures).flatten(2).mT + self.positions
        x = torch.cat([self.joint_tokens.expand(len(pictures), -1, -1), patches], dim=1)
        x = self.blocks(x)
        maps: Tensor = self.head(self.norm(x[:, : self.joints]))
        return maps.unflatten(-1, (self.cells, self.cells))


def heatmaps(joints: Tensor, side: int, cells: int) -> Tensor:
    """Gaussians (B, K, H, H) of one pixel of the map around joints (B, K, 2) in pixels of a picture of that side."""
    cell = side / cells
    grid = (torch.arange(cells, device=joints.device) + 0.5) * cell
    distance = (grid - joints[..., :1])[..., None, :].square() + (grid - joints[..., 1:])[..., None].square()
    return torch.exp(-distance / (2 * cell**2))


def heatmap_loss(kind: str, output: Tensor, joints: Tensor, seen: Tensor, side: int) -> Tensor:
    """Of heatmaps (B, K, H, H), for the joints (B, K, 2) that are ``seen`` (B, K).

    ``mse`` is the papers', the mean of all squares, those of unseen joints 0; ``ce`` the cross-entropy of the places.
    """
    wanted = heatmaps(joints, side, output.shape[-1])
    if kind == "mse":
        return F.mse_loss(output.float() * seen[..., None, None], wanted * seen[..., None, None])
    shares = wanted.flatten(2) / wanted.flatten(2).sum(-1, keepdim=True)
    each = -(shares * output.float().flatten(2).log_softmax(-1)).sum(-1)
    return (each * seen).sum() / seen.sum().clamp(min=1)


def places(output: Tensor, side: int) -> Tensor:
    """Where heatmaps (B, K, H, H) are highest, (B, K, 2), in pixels of a picture of that side."""
    cells = output.shape[-1]
    best = output.flatten(2).argmax(-1)
    return (torch.stack([best % cells, best // cells], dim=-1) + 0.5) * (side / cells)
