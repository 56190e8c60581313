"""MixSTE: attention over joints and over frames in turn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .config import NetworkConfig
from .layers import BLOCK_EPS, FRAMES, JOINTS, Block, rising
from .lifter import Lifter, positions_of

HEAD_EPS = 1e-5
"""Epsilon of the LayerNorm in the head, unlike `BLOCK_EPS` everywhere else."""


@dataclass(frozen=True)
class MixSTEConfig(NetworkConfig):
    """A MixSTE; the defaults are the published model.

    Args:
        depth: Levels.
        mlp_ratio: Channels inside the MLPs, in units of ``dim``.
        drop_path: Rate of stochastic depth in the last level, rising from 0 in the first.
    """

    depth: int = 8
    mlp_ratio: int = 2
    drop_path: float = 0.1


class MixSTELevel(nn.Module):
    """Attention over the joints of each frame, then over the frames of each joint.

    Args:
        blocks: The spatial block, or ``None`` for the first level, whose spatial half stands in the stem, and the
            temporal one.
        norms: The norms after them. All levels share both, so they are registered in the model alone: a level that
            registered them too would write them into the state dict again.
    """

    def __init__(self, blocks: tuple[Block | None, Block], norms: tuple[nn.LayerNorm, nn.LayerNorm]) -> None:
        super().__init__()
        self.spatial, self.temporal = blocks
        self._norms = norms  # a tuple is no submodule; deepcopy and pickle keep what is shared

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, J, C) to the same shape."""
        spatial_norm, temporal_norm = self._norms
        if self.spatial is not None:
            x = spatial_norm(self.spatial(x))
        return temporal_norm(self.temporal(x))


class MixSTE(Lifter):
    """MixSTE on clips (B, F, J, 2).

    The official code adds the temporal positions between the first spatial and the first temporal block. So the first
    spatial block belongs to the stem, and the first level has a temporal half only. Cycling ``levels`` repeats it with
    the other seven; ``levels[1:8]`` repeats whole pairs.

    Example:
        >>> MixSTE(MixSTEConfig(frames=27, dim=32)).eval()(torch.zeros(1, 27, 17, 2)).shape
        torch.Size([1, 27, 17, 3])

    Source: MixSTE (CVPR 2022, arXiv 2203.00859).
    """

    config_type = MixSTEConfig

    def __init__(self, config: MixSTEConfig) -> None:
        super().__init__()
        self.config: MixSTEConfig = config
        dim, hidden = config.dim, config.mlp_ratio * config.dim
        rates = rising(config.drop_path, config.depth)
        self.embed_joints = nn.Linear(config.in_channels, dim)
        self.spatial_pos = nn.Parameter(torch.zeros(1, config.joints, dim))
        self.temporal_pos = nn.Parameter(torch.zeros(1, config.frames, dim))
        self.first = Block(dim, config.heads, hidden, JOINTS, drop_path=rates[0])
        self.spatial_norm, self.temporal_norm = nn.LayerNorm(dim, BLOCK_EPS), nn.LayerNorm(dim, BLOCK_EPS)

        def level(index: int) -> MixSTELevel:
            spatial = Block(dim, config.heads, hidden, JOINTS, drop_path=rates[index]) if index else None
            temporal = Block(dim, config.heads, hidden, FRAMES, drop_path=rates[index])
            return MixSTELevel((spatial, temporal), (self.spatial_norm, self.temporal_norm))

        self.levels = nn.ModuleList(map(level, range(config.depth)))
        self.norm = nn.Identity()
        self.head = nn.Sequential(nn.LayerNorm(dim, HEAD_EPS), nn.Linear(dim, 3))

    def embed(self, poses: Tensor) -> Tensor:
        """Joints to tokens, the first spatial block, then the temporal positions."""
        tokens = self.spatial_norm(self.first(self.embed_joints(poses) + self.spatial_pos))
        positions = positions_of(self.temporal_pos, poses.shape[1], self.config.lengths)
        return tokens + positions.unsqueeze(2)
