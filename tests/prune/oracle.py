"""What pruning must give, as a loop written by hand over a plain model: every layer whole, then tokens are dropped."""

from __future__ import annotations

import math
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

TOKENS = 16


def vit(**changed: Any) -> VisionTransformer:
    """A vision transformer of 16 patches and four layers, in double precision so that nothing hides in rounding."""
    settings = {"img_size": 32, "patch_size": 8, "num_classes": 7, "embed_dim": 24, "depth": 4, "num_heads": 3}
    return VisionTransformer(**{**settings, **changed}).double().eval()


def images(number: int = 3, size: int = 32) -> Tensor:
    return torch.randn(number, 3, size, size, dtype=torch.float64)


def scores(block: nn.Module, x: Tensor, query: slice, first: int) -> Tensor:
    """Attention of the query rows over all keys, mean over heads, summed over the queries: (B, N - first)."""
    attention: Any = block.attn
    batch, number, _ = x.shape
    qkv = attention.qkv(block.norm1(x)).reshape(batch, number, 3, attention.num_heads, -1)
    q, k, _ = qkv.permute(2, 0, 3, 1, 4)
    weights = (attention.q_norm(q) @ attention.k_norm(k).transpose(-1, -2) * attention.scale).softmax(-1)
    return weights[:, :, query].mean(1).sum(1)[:, first:]


def drop_after_whole_layers(
    blocks: nn.Module, x: Tensor, layers: tuple[int, ...], keep: float, query: slice, first: int
) -> tuple[Tensor, Tensor]:
    """The stack's output and the kept positions in the grid, one image at a time."""
    outputs, kept = [], []
    for image in x:
        state, index = image[None], torch.arange(x.shape[1] - first)
        for number, block in enumerate(blocks):
            before, state = state, block(state)
            if number in layers:
                count = math.ceil(len(index) * keep)
                best = scores(block, before, query, first)[0].sort(descending=True, stable=True).indices[:count]
                index = index[best]
                state = torch.cat([state[:, :first], state[:, first:][:, best]], 1)
        outputs.append(state)
        kept.append(index)
    return torch.cat(outputs), torch.stack(kept)


def embed(model: VisionTransformer, x: Tensor) -> Tensor:
    return model.norm_pre(model._pos_embed(model.patch_embed(x)))


def finish(model: VisionTransformer, x: Tensor) -> Tensor:
    return model.forward_head(model.norm(x))
