"""MHFormer: three hypotheses of the pose, refined by attention over frames and across each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from .config import NetworkConfig
from .layers import BLOCK_EPS, FRAMES, JOINTS, Attention, Block, DropPath, Mlp, attend, rising
from .lifter import Lifter

HYPOTHESES = 3
ENCODER_DEPTH, ENCODER_HEADS = 4, 9
SHORT = 27
"""Up to this clip length, the official code puts BatchNorm, ReLU and Dropout behind the embeddings."""


@dataclass(frozen=True)
class MHFormerConfig(NetworkConfig):
    """An MHFormer; the defaults are the published model of 351 frames.

    Args:
        frames: Frames of a clip; divisible by 9, the heads of the encoders, whose tokens are as wide as the clip is
            long. For the same reason ``lengths`` can be nothing but "exact".
        depth: Levels: all but the last refine each hypothesis by itself, the last lets them interact.
        hidden: Channels inside the MLPs of the levels, which see three times ``dim``.
        dropout: In the encoders and the levels.
        drop_path: Rate of stochastic depth in the last block of the encoders and of the levels, rising from 0.
    """

    frames: int = 351
    depth: int = 3
    hidden: int = 1024
    dropout: float = 0.1
    drop_path: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 2:
            raise ValueError(f"depth={self.depth}: a whole number of at least 2 is expected")
        if self.frames % ENCODER_HEADS:
            near = max(round(self.frames / ENCODER_HEADS), 1) * ENCODER_HEADS
            raise ValueError(
                f"frames={self.frames} is not divisible by {ENCODER_HEADS}, the heads of MHFormer's encoders; "
                f"nearest: {near}"
            )
        if self.lengths != "exact":
            raise ValueError(
                f'lengths={self.lengths!r}: MHFormer\'s encoders are as wide as the clip is long, so "exact" is all it '
                "can do; build it with the number of frames you need"
            )


class Encoder(nn.Module):
    """A transformer whose tokens are the coordinates of the joints, each as wide as the clip is long.

    Args:
        config: Of the whole model.
    """

    def __init__(self, config: MHFormerConfig) -> None:
        super().__init__()
        frames = config.frames
        self.pos = nn.Parameter(torch.zeros(1, config.joints * config.in_channels, frames))
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.Sequential(
            *(
                Block(frames, ENCODER_HEADS, 2 * frames, JOINTS, config.dropout, rate)
                for rate in rising(config.drop_path, ENCODER_DEPTH)
            )
        )
        self.norm = nn.LayerNorm(frames, BLOCK_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, coordinates, F) to the same shape."""
        tokens = self.drop(x + self.pos).unsqueeze(1)
        return self.norm(self.blocks(tokens)).squeeze(1)


class Stem(nn.Module):
    """Poses to three hypotheses: a chain of encoders, an embedding behind each, temporal positions.

    Args:
        config: Of the whole model.
    """

    def __init__(self, config: MHFormerConfig) -> None:
        super().__init__()
        coordinates = config.joints * config.in_channels

        def embedding() -> nn.Module:
            layer = nn.Conv1d(coordinates, config.dim, 1)
            if config.frames > SHORT:
                return layer
            return nn.Sequential(layer, nn.BatchNorm1d(config.dim), nn.ReLU(), nn.Dropout(0.25))

        self.norm = nn.ModuleList(nn.LayerNorm(config.frames) for _ in range(HYPOTHESES))  # epsilon 1e-5 here
        self.encoder = nn.ModuleList(Encoder(config) for _ in range(HYPOTHESES))
        self.embed = nn.ModuleList(embedding() for _ in range(HYPOTHESES))
        self.temporal_pos = nn.Parameter(torch.zeros(1, config.frames, HYPOTHESES, config.dim))
        self.drop = nn.Dropout(config.dropout)

    def forward(self, poses: Tensor) -> Tensor:
        """Poses (B, F, J, in_channels) to tokens (B, F, 3, C)."""
        x = poses.flatten(2).transpose(1, 2)
        hypotheses = []
        for norm, encoder, embed in zip(self.norm, self.encoder, self.embed, strict=True):
            x = x + encoder(norm(x))
            hypotheses.append(embed(x).transpose(1, 2))
        return self.drop(torch.stack(hypotheses, dim=2) + self.temporal_pos)


class JointMlp(nn.Module):
    """One MLP on the three hypotheses side by side, pre-norm: what both kinds of level end with."""

    def _add_mlp(self, config: MHFormerConfig, drop_path: float) -> None:
        self.norm2 = nn.LayerNorm(HYPOTHESES * config.dim, BLOCK_EPS)
        self.mlp = Mlp(HYPOTHESES * config.dim, config.hidden, config.dropout)
        self.drop_path = DropPath(drop_path, FRAMES)

    def mix(self, hypotheses: list[Tensor]) -> Tensor:
        """Three of (B, F, 1, C) to (B, F, 3, C)."""
        x = torch.cat(hypotheses, dim=-1)
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x.squeeze(2).unflatten(-1, (HYPOTHESES, -1))


class SelfRefinement(JointMlp):
    """Each hypothesis attends over frames by itself, then one MLP sees all three (SHR)."""

    def __init__(self, config: MHFormerConfig, drop_path: float) -> None:
        super().__init__()
        for n in (1, 2, 3):
            self.add_module(f"norm1_{n}", nn.LayerNorm(config.dim, BLOCK_EPS))
            self.add_module(f"attn_{n}", Attention(config.dim, config.heads, FRAMES, config.dropout))
        self._add_mlp(config, drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, 3, C) to the same shape."""
        return self.mix([self._refine(n, each) for n, each in enumerate(x.split(1, dim=2), 1)])

    def _refine(self, n: int, x: Tensor) -> Tensor:
        norm, attn = getattr(self, f"norm1_{n}"), getattr(self, f"attn_{n}")
        return x + self.drop_path(attn(norm(x)))


class CrossAttention(nn.Module):
    """Attention over frames whose queries, keys and values are of three different hypotheses.

    Args:
        dim: Channels of a token, C.
        heads: Attention heads.
        dropout: Of the result.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = heads
        self.linear_q, self.linear_k, self.linear_v = (nn.Linear(dim, dim) for _ in range(3))
        self.proj = nn.Linear(dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Three of (B, F, 1, C) to one of them."""
        q, k, v = self.linear_q(queries), self.linear_k(keys), self.linear_v(values)
        return self.drop(self.proj(attend(q, k, v, self.num_heads, FRAMES)))


class Interaction(JointMlp):
    """Each hypothesis is the value of an attention between the other two, then one MLP sees all three (CHI).

    One after the other: the second hypothesis sees the new first one, the third both new ones.
    """

    SOURCES: ClassVar[tuple[tuple[int, int, int], ...]] = ((2, 3, 1), (1, 3, 2), (1, 2, 3))
    """Hypotheses that give query, key and value to the attention that updates the first, second and third."""

    def __init__(self, config: MHFormerConfig, drop_path: float) -> None:
        super().__init__()
        for n in (1, 2, 3):
            for role in (1, 2, 3):
                self.add_module(f"norm3_{n}{role}", nn.LayerNorm(config.dim, BLOCK_EPS))
            self.add_module(f"attn_{n}", CrossAttention(config.dim, config.heads, config.dropout))
        self._add_mlp(config, drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, 3, C) to the same shape."""
        hypotheses = list(x.split(1, dim=2))
        for n, sources in enumerate(self.SOURCES, 1):
            norms = (getattr(self, f"norm3_{n}{role}") for role in (1, 2, 3))
            given = (norm(hypotheses[source - 1]) for norm, source in zip(norms, sources, strict=True))
            hypotheses[n - 1] = hypotheses[n - 1] + self.drop_path(getattr(self, f"attn_{n}")(*given))
        return self.mix(hypotheses)


class Regression(nn.Sequential):
    """BatchNorm and a linear layer on the three hypotheses side by side: (B, F, 3, C) to (B, F, J, 3)."""

    def __init__(self, config: MHFormerConfig) -> None:
        width = HYPOTHESES * config.dim
        super().__init__(nn.BatchNorm1d(width), nn.Conv1d(width, 3 * config.joints, 1))

    def forward(self, x: Tensor) -> Tensor:
        """One pose a frame."""
        return super().forward(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(-1, (-1, 3))


class MHFormer(Lifter):
    """MHFormer on clips (B, F, J, 2). Its tokens have no joints: the third axis holds the three hypotheses.

    The published model predicts all frames and is trained and used for the centre one. The head has a BatchNorm, which
    extra cycles run again: keep ``batch_norm="freeze"`` of ``wrap_cyclic``.

    Example:
        >>> MHFormer(MHFormerConfig(frames=27, dim=32, hidden=64)).eval()(torch.zeros(1, 27, 17, 2)).shape
        torch.Size([1, 27, 17, 3])

    Source: MHFormer (CVPR 2022, arXiv 2111.12707).
    """

    config_type = MHFormerConfig

    pool: ClassVar[Literal["mean", "concat"]] = "concat"
    resizes: ClassVar[bool] = False

    def __init__(self, config: MHFormerConfig) -> None:
        super().__init__()
        self.config: MHFormerConfig = config
        rates = rising(config.drop_path, config.depth)
        kinds: list[Callable[..., nn.Module]] = [SelfRefinement] * (config.depth - 1) + [Interaction]
        self.stem = Stem(config)
        self.levels = nn.ModuleList(kind(config, rate) for kind, rate in zip(kinds, rates, strict=True))
        self.norm = nn.LayerNorm((HYPOTHESES, config.dim), BLOCK_EPS)
        self.head = Regression(config)

    def embed(self, poses: Tensor) -> Tensor:
        """The three hypotheses of every frame."""
        return self.stem(poses)
