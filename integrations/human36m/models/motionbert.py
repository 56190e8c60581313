"""MotionBERT's DSTformer: two streams a level, one over joints first, one over frames first."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .config import Lengths, NetworkConfig
from .convention import MOTIONBERT
from .layers import BLOCK_EPS, FRAMES, JOINTS, Attention, Mlp
from .lifter import Lifter, positions_of


@dataclass(frozen=True)
class MotionBERTConfig(NetworkConfig):
    """A DSTformer; the defaults are the full size. Lite: ``dim=256, mlp_ratio=4``.

    Args:
        depth: Levels.
        mlp_ratio: Channels inside the MLPs, in units of ``dim``.
        dim_rep: Channels of the representation before the last layer.
    """

    in_channels: int = 3
    lengths: Lengths = "shorter"
    depth: int = 5
    mlp_ratio: int = 2
    dim_rep: int = 512


class Stream(nn.Module):
    """Attention and MLP over one axis, then over the other, with norms of their own.

    Args:
        dim: Channels of a token, C.
        heads: Attention heads.
        hidden: Channels inside the MLPs.
        order: "st", joints first, or "ts", frames first.
    """

    def __init__(self, dim: int, heads: int, hidden: int, order: str) -> None:
        super().__init__()
        self.order = order
        for name, axis in (("s", JOINTS), ("t", FRAMES)):
            self.add_module(f"norm1_{name}", nn.LayerNorm(dim, BLOCK_EPS))
            self.add_module(f"attn_{name}", Attention(dim, heads, axis))
            self.add_module(f"norm2_{name}", nn.LayerNorm(dim, BLOCK_EPS))
            self.add_module(f"mlp_{name}", Mlp(dim, hidden))

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, J, C) to the same shape."""
        for name in self.order:
            norm1, attn, norm2, mlp = (getattr(self, f"{part}_{name}") for part in ("norm1", "attn", "norm2", "mlp"))
            x = x + attn(norm1(x))
            x = x + mlp(norm2(x))
        return x


class MotionBERTLevel(nn.Module):
    """Both streams on the same tokens, weighed against each other token by token."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.st, self.ts = Stream(dim, heads, hidden, "st"), Stream(dim, heads, hidden, "ts")
        self.fuse = nn.Linear(2 * dim, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, J, C) to the same shape."""
        joints_first, frames_first = self.st(x), self.ts(x)
        weights = self.fuse(torch.cat([joints_first, frames_first], dim=-1)).softmax(dim=-1)
        return joints_first * weights[..., :1] + frames_first * weights[..., 1:]


class MotionBERT(Lifter):
    """MotionBERT's network on clips (B, F, J, 3): x, y and the detector's confidence.

    The residual stream is not normalised between levels, so its scale grows with every cycle: a token loss between
    cycles needs normalised tokens (``Distill(normalize=True)``) or an attached teacher.

    Example:
        >>> MotionBERT(MotionBERTConfig(frames=27, dim=32)).eval()(torch.zeros(1, 9, 17, 3)).shape
        torch.Size([1, 9, 17, 3])

    Source: MotionBERT (ICCV 2023, arXiv 2210.06551).
    """

    config_type = MotionBERTConfig
    official = MOTIONBERT

    def __init__(self, config: MotionBERTConfig) -> None:
        super().__init__()
        self.config: MotionBERTConfig = config
        dim, hidden = config.dim, config.mlp_ratio * config.dim
        self.embed_joints = nn.Linear(config.in_channels, dim)
        self.spatial_pos = nn.Parameter(torch.zeros(1, config.joints, dim))
        self.temporal_pos = nn.Parameter(torch.zeros(1, config.frames, 1, dim))
        self.levels = nn.ModuleList(MotionBERTLevel(dim, config.heads, hidden) for _ in range(config.depth))
        self.norm = nn.LayerNorm(dim, BLOCK_EPS)
        layers = (("fc", nn.Linear(dim, config.dim_rep)), ("act", nn.Tanh()), ("out", nn.Linear(config.dim_rep, 3)))
        self.head = nn.Sequential(OrderedDict[str, nn.Module](layers))
        self._init_weights()

    def _init_weights(self) -> None:
        for table in (self.spatial_pos, self.temporal_pos):
            nn.init.trunc_normal_(table, std=0.02)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and name.endswith("fuse"):  # both streams weigh the same at first
                nn.init.zeros_(module.weight)
                nn.init.constant_(module.bias, 0.5)
            elif isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def embed(self, poses: Tensor) -> Tensor:
        """Joints to tokens, with the positions of both axes."""
        positions = positions_of(self.temporal_pos, poses.shape[1], self.config.lengths)
        return self.embed_joints(poses) + self.spatial_pos + positions
