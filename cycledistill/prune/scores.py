"""How much attention the scoring tokens of a model pay to every token, read off one attention layer.

Source: PPT (ECCV 2022), section 3.2, there with keypoint tokens; with a class token it is EViT's attentiveness.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def tables_in(arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """The rotary table and the mask among a block's arguments, as ``rope`` and ``mask``."""
    tensors = [(name, value) for name, value in arguments.items() if isinstance(value, Tensor)]
    return {kind: value for kind in ("rope", "mask") for name, value in tensors if kind in name}


@torch.no_grad()
def token_scores(
    attention: Any, qkv: Tensor, scoring: slice, first: int, rope: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Score of every droppable token: attention from the scoring tokens, mean over heads, summed over these tokens.

    Args:
        attention: The attention module: ``num_heads``, ``scale``, and where it has them ``q_norm``, ``k_norm``.
        qkv: What its ``qkv`` returned, (B, N, 3 * H * D), the queries first, then keys, then values.
        scoring: The scoring tokens.
        first: Tokens in front that are never dropped and so get no score.
        rope: Rotary table the attention was given, its last axis sine and cosine.
        mask: Attention mask it was given, boolean (true: attend) or added to the logits.

    Returns:
        Scores (B, N - first). The softmax of a row runs over all N tokens.
    """
    paid = scoring_attention(attention, qkv.detach(), scoring, rope, mask)  # else views of it ask for gradients
    return paid[..., first:].sum(dim=(1, 2)) / paid.shape[1]


def scoring_attention(
    attention: Any, qkv: Tensor, scoring: slice, rope: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """The attention (B, H, Q, N) of the scoring tokens; arguments as for :func:`token_scores`."""
    batch, number, _ = qkv.shape
    q, k, _ = qkv.reshape(batch, number, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    rotated = rope is not None and scoring.stop > attention.num_prefix_tokens  # tokens of the prefix are not rotated
    q = q if rotated else q[:, :, scoring]
    q_norm, k_norm = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
    q = q if q_norm is None else q_norm(q)
    k = k if k_norm is None else k_norm(k)
    if rope is not None:
        k = _rotate(attention, k, rope)
        q = _rotate(attention, q, rope)[:, :, scoring] if rotated else q
    logits = (q * attention.scale) @ k.transpose(-2, -1)
    if mask is not None:
        if mask.ndim == 2 and mask.shape != (number, number):  # (B, N), one entry per key
            mask = mask[:, None, None]
        mine = mask[..., scoring, :] if mask.shape[-2] == number else mask
        logits = logits.masked_fill(~mine, float("-inf")) if mine.dtype == torch.bool else logits + mine
    return logits.softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))  # as fused attention does


def _rotate(attention: Any, x: Tensor, rope: Tensor) -> Tensor:
    """Rotary embedding of (B, H, N, D) as timm lays it out: pairs of neighbours, or the halves of the channels."""
    prefix = attention.num_prefix_tokens
    sine, cosine = rope.chunk(2, dim=-1)
    rest = x[:, :, prefix:]
    if getattr(attention, "rotate_half", False):
        left, right = rest.chunk(2, dim=-1)
        turned = torch.cat((-right, left), dim=-1)
    else:
        turned = torch.stack((-rest[..., 1::2], rest[..., ::2]), dim=-1).flatten(-2)
    return torch.cat((x[:, :, :prefix], (rest * cosine + turned * sine).to(x.dtype)), dim=2)
