"""Keypoints of drawn figures, by a small transformer with a token a joint, as TokenPose has it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..expected import Settings, one_of, whole
from ..plan import Network
from .keypoints import KeypointNetwork, heatmap_loss, places
from .task import TEST_SEED, Drawn, Inputs, draw

PARENTS = (-1, 0, 1, 2, 1, 4, 0, 6, 0, 8, 1)
"""Hip, neck, elbow and hand of one side, of the other, knee and foot of one side, of the other, head."""
LENGTHS = (0.0, 0.22, 0.14, 0.13, 0.14, 0.13, 0.16, 0.15, 0.16, 0.15, 0.1)
"""Of the limb that ends in a joint, as a share of the picture's side."""
SIZE, PATCH, MAP = 32, 8, 16


def figures(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures (count, 1, 32, 32) in [0, 1] and the joints in them, (count, 11, 2), x and y in pixels.

    Both sides are drawn alike. Which is which follows from a mark beside the head: figures that look left and right are
    mirror images. Strokes that belong to nobody and a grey box over a part are added.
    """

    def random(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator, device=generator.device)

    looks = torch.where(random() < 0.5, -1.0, 1.0)
    lean = 0.5 * (random(1) - 0.5)
    swing = (random(len(PARENTS)) - 0.5) * torch.tensor([0, 0.4, 2.2, 2.6, 2.2, 2.6, 1.6, 1.2, 1.6, 1.2, 0.5]).to(lean)
    towards = torch.tensor([0, -1.0, 1, 1, 1, 1, 1, 1, 1, 1, -1.0]).to(lean) * math.pi / 2
    apart = torch.tensor([0, 0, 0.6, 0.3, -0.6, -0.3, 0.3, 0.0, -0.3, 0.0, 0]).to(lean)
    angle = towards - apart * looks[:, None] + swing + lean
    reach = torch.tensor(LENGTHS).to(lean) * SIZE * (0.8 + 0.4 * random(1))
    step = torch.stack([reach * angle.cos(), reach * angle.sin()], dim=-1)
    joints = [SIZE * (0.35 + 0.3 * random(2))]
    for joint, parent in enumerate(PARENTS[1:], 1):
        joints.append(joints[parent] + step[:, joint])
    placed = torch.stack(joints, dim=1).clamp(1, SIZE - 2)
    mark = placed[:, 10] + torch.stack([2.5 * looks, torch.zeros_like(looks)], dim=-1)
    clutter = SIZE * random(3, 2, 2)
    clutter[:, :, 1] = clutter[:, :, 0] + (clutter[:, :, 1] - clutter[:, :, 0]) * 0.3
    starts = torch.cat([placed[:, list(PARENTS[1:])], mark[:, None], clutter[:, :, 0]], dim=1)
    ends = torch.cat([placed[:, 1:], mark[:, None] + 0.5, clutter[:, :, 1]], dim=1)
    pictures = _strokes(starts, ends)
    corner, side = SIZE * random(2), SIZE * (0.1 + 0.2 * random(2))
    grid = torch.arange(SIZE, device=generator.device) + 0.5
    hidden = [(grid > corner[:, i, None]) & (grid < (corner + side)[:, i, None]) for i in (0, 1)]
    pictures = torch.where(hidden[1][:, :, None] & hidden[0][:, None, :], 0.5, pictures)
    return pictures[:, None], placed


def _strokes(starts: Tensor, ends: Tensor) -> Tensor:
    """Lines of soft edges between points (B, L, 2), the brightest of which is seen; (B, 32, 32)."""
    grid = torch.arange(SIZE, device=starts.device) + 0.5
    points = torch.stack(torch.meshgrid(grid, grid, indexing="xy"), dim=-1).flatten(0, 1)
    along = ends - starts
    offset = points - starts[:, :, None]
    share = (offset * along[:, :, None]).sum(-1) / along.square().sum(-1, keepdim=True).clamp(min=1e-6)
    distance = (offset - share.clamp(0, 1)[..., None] * along[:, :, None]).square().sum(-1)
    return torch.exp(-distance / 0.8).amax(1).view(-1, SIZE, SIZE)


def figures_as_bytes(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """As `figures`, the pictures in a quarter of the memory: drawing costs more than a step, so they are kept."""
    pictures, joints = figures(count, generator)
    return (255 * pictures).round().to(torch.uint8), joints


class Figures:
    """Endless figures; a joint is found where its heatmap is highest.

    Args:
        loss: ``mse`` of heatmaps with a Gaussian of one pixel, as in the papers, or ``ce``, cross-entropy with it.
        test_figures: How many are read.
    """

    blocks = "blocks"
    confidence = "probability"
    settings: ClassVar[Settings] = {"loss": one_of("mse", "ce"), "test_figures": whole(1)}

    def __init__(self, *, loss: str, test_figures: int, data: Path | None, device: torch.device) -> None:
        self.kind, self.test_figures, self.device = loss, test_figures, device
        self.example = (torch.zeros(1, 1, SIZE, SIZE),)
        self._drawn = Drawn(figures_as_bytes, device)

    def network(self, size: Network) -> nn.Module:
        """See `Task`."""
        return KeypointNetwork(size, channels=1, side=SIZE, patch=PATCH, joints=len(PARENTS), cells=MAP)

    def batch(self, seed: int, step: int, size: int) -> tuple[Tensor, Inputs]:
        """See `Task`."""
        shown, joints = self._drawn.batch(seed, step, size)
        return shown.float() / 255, (joints,)

    def loss(self, output: Tensor, *target: Tensor) -> Tensor:
        """Of the heatmaps."""
        return heatmap_loss(self.kind, output, target[0], torch.ones_like(target[0][..., 0]), SIZE)

    def test(self) -> Iterator[tuple[str, Tensor, Inputs]]:
        """See `Task`."""
        made = figures(self.test_figures, draw(TEST_SEED, device=self.device))
        for shown, joints in zip(*(each.split(250) for each in made), strict=True):
            yield "", shown, (joints,)

    def right(self, output: Tensor, *target: Tensor) -> dict[str, Tensor]:
        """The share of a figure's joints found within 2 pixels (``pck``), and their object keypoint similarity.

        ``oks``: COCO's exp(-d²/2k²) with k of 2 pixels for every joint, its mean over them.
        """
        distance = (places(output, SIZE) - target[0]).square().sum(-1)
        return {"pck": (distance < 4).float().mean(1), "oks": torch.exp(-distance / 8).mean(1)}
