"""Small temporal transformers of every layout that an hourglass serves, in double precision."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

FRAMES, WIDTH, HEADS, DEPTH, JOINTS = 12, 8, 2, 5, 3


class Attention(nn.Module):
    """Attention over the last axis but one, with the parts that ``select="attention"`` reads."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.num_heads = HEADS
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).movedim(-3, 0).transpose(-3, -2).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(-3, -2).flatten(-2))


class Block(nn.Module):
    """A pre-norm block on (..., N, C)."""

    def __init__(self, width: int = WIDTH, drop: float = 0.0) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(drop), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class JointBlock(nn.Module):
    """Attention over joints, then over frames, on (B, F, J, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial, self.temporal = Block(), Block()

    def forward(self, x: Tensor) -> Tensor:
        return self.temporal(self.spatial(x).transpose(1, 2)).transpose(1, 2).contiguous()


class Exchange(nn.Module):
    """Three streams (B, F, C), which see each other only here."""

    def __init__(self) -> None:
        super().__init__()
        self.streams = nn.ModuleList(Block() for _ in range(3))

    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a = self.streams[0](a)
        b = self.streams[1](b) + a
        return a, b, self.streams[2](c) + b


class FrameModel(nn.Module):
    """One token a frame: (B, F, J, 2) to (B, F, 3 J)."""

    block: Any = Block

    def __init__(self, **block: Any) -> None:
        super().__init__()
        self.config = SimpleNamespace(frames=FRAMES)
        self.stem = nn.Linear(2 * JOINTS, WIDTH)
        self.pos = nn.Parameter(torch.randn(1, FRAMES, WIDTH))
        self.levels = nn.ModuleList(self.block(**block) for _ in range(DEPTH))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * JOINTS)

    def embed(self, poses: Tensor) -> Any:
        return self.stem(poses.flatten(2)) + self.pos[:, : poses.shape[1]]

    def forward(self, poses: Tensor) -> Tensor:
        return self.finish(self.run(self.embed(poses)))

    def run(self, x: Any) -> Any:
        for level in self.levels:
            x = level(x)
        return x

    def finish(self, x: Any) -> Tensor:
        return self.head(self.norm(x))


class JointModel(FrameModel):
    """A token for each joint: (B, F, J, 2) to (B, F, J, 3)."""

    block = JointBlock

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(2, WIDTH), nn.Linear(WIDTH, 3)

    def embed(self, poses: Tensor) -> Tensor:
        return self.stem(poses) + self.pos[:, : poses.shape[1], None]


class Checkpointed(JointModel):
    """Its levels are checkpointed, or not."""

    saves = False

    def run(self, x: Tensor) -> Tensor:
        for level in self.levels:
            x = checkpoint(level, x, use_reentrant=False) if self.saves else level(x)
        return x


class NormEach(nn.LayerNorm):
    """One norm for all streams."""

    def forward(self, *streams: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return tuple(super(NormEach, self).forward(each) for each in streams)


class TupleModel(FrameModel):
    """The state is a tuple of three streams."""

    block = Exchange
    pool = "concat"

    def __init__(self) -> None:
        super().__init__()
        self.norm = NormEach(WIDTH)

    def embed(self, poses: Tensor) -> tuple[Tensor, ...]:
        x = super().embed(poses)
        return x, x.flip(-1), x.roll(1, -1)

    def run(self, x: Any) -> Any:
        for level in self.levels:
            x = level(*x)
        return x

    def finish(self, x: Any) -> Tensor:
        return self.head(sum(self.norm(*x)))


class SequenceFirst(nn.Module):
    """torch's own encoder on (F, B, C), behind a submodule."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, dropout=0.0, norm_first=True)
        self.stem, self.head = nn.Linear(2 * JOINTS, WIDTH), nn.Linear(WIDTH, 3 * JOINTS)
        self.pos = nn.Parameter(torch.randn(FRAMES, 1, WIDTH))
        self.encoder = nn.TransformerEncoder(layer, DEPTH, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False)

    def forward(self, poses: Tensor) -> Tensor:
        x = self.stem(poses.flatten(2).transpose(0, 1)) + self.pos
        return self.head(self.encoder(x)).transpose(0, 1)


def poses(batch: int = 2, frames: int = FRAMES) -> Tensor:
    return torch.randn(batch, frames, JOINTS, 2, dtype=torch.float64)


def build(kind: type[nn.Module] = FrameModel, **settings: Any) -> Any:
    return kind(**settings).double().eval()


def awake(model: Any) -> Any:
    """The same model with tables that are no longer zero."""
    with torch.no_grad():
        for module in (model.prune, model.recover):
            for parameter in module.parameters():
                parameter.normal_()
    return model
