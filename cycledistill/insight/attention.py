"""See attention weights as a model computes them, whatever its attention: fused, written out, or PyTorch's module."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Seen = Callable[[Tensor, int], None]
"""Takes weights (B, heads, rows, keys), float32, and the number of query tokens that the rows were taken of."""

_SOFTMAX = (torch.softmax, F.softmax, Tensor.softmax)


class AttentionHook(TorchFunctionMode):
    """Calls ``seen`` with the weights of every attention that runs while it is entered.

    Fused attention (``scaled_dot_product_attention``) keeps no weights: they are worked out again, for ``rows`` alone.
    ``torch.nn.MultiheadAttention`` is asked for its weights. Attention written out is recognised by its softmax over
    the last dimension of (B, heads, queries, keys), or of (B, queries, queries), which counts as one head. Other
    kernels, such as ``flex_attention``, are not seen.
    """

    def __init__(self, seen: Seen, rows: slice | None = None) -> None:
        super().__init__()
        self.seen, self.rows = seen, rows or slice(None)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            query = args[0] if args else kwargs["query"]
            self.seen(_with_heads(_weights(self.rows, *args, **kwargs)), query.shape[-2])
        elif func is F.multi_head_attention_forward:
            return self._ask(func, args, kwargs)
        output = func(*args, **kwargs)
        if func in _SOFTMAX and _dimension(args, kwargs) in (-1, output.ndim - 1) and _is_attention(output):
            self._hand(output)
        return output

    def _hand(self, weights: Tensor) -> None:
        self.seen(_with_heads(weights.detach())[..., self.rows, :].float(), weights.shape[-2])

    def _ask(self, func: Any, args: Any, kwargs: Any) -> Any:
        wanted, averaged = kwargs.get("need_weights", True), kwargs.get("average_attn_weights", True)
        output, weights = func(*args, **(kwargs | {"need_weights": True, "average_attn_weights": False}))
        self._hand(weights if weights.ndim == 4 else weights.unsqueeze(0))  # called without a batch
        if not wanted:
            return output, None
        return output, weights.mean(dim=-3) if averaged else weights


@contextmanager
def hook_attention(seen: Seen, rows: slice | None = None) -> Iterator[None]:
    """`AttentionHook`, with PyTorch's fused encoder layer, which hides its attention, switched off meanwhile."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with AttentionHook(seen, rows):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def over_tokens(weights: Tensor, queries: int, state: torch.Size) -> bool:
    """Whether weights seen in a block are attention over tokens, as far as shapes tell.

    Not so are attention over channels (XCiT, DaViT): a square of channels in each of several heads, of another size
    than there are tokens; and a gate, a softmax over a few numbers at each token of (B, F, J, C). ``weights`` and the
    number of ``queries`` (or channels) are those handed to `Seen`, ``state`` is the shape of what entered the block.
    """
    batch, heads, keys = weights.shape[0], weights.shape[1], weights.shape[3]
    if len(state) == 4 and (batch, heads, queries) == tuple(state[:3]):
        return False
    channels = heads * keys
    square = queries == keys and heads > 1 and batch == state[0] and channels in state[1:]
    return not square or state.numel() == batch * queries * channels


def _is_attention(softmax: Tensor) -> bool:
    return softmax.ndim == 4 or (softmax.ndim == 3 and softmax.shape[-1] == softmax.shape[-2])


def _with_heads(weights: Tensor) -> Tensor:
    """(B, heads, rows, keys) of weights without heads, or with more than one batch dimension."""
    return weights.unsqueeze(1) if weights.ndim == 3 else weights.flatten(0, -4)


def _weights(
    rows: slice,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(Q K^T * scale + mask) of some rows, in float32."""
    with torch.no_grad():
        if enable_gqa:
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
        factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        scores = query[..., rows, :].float() @ key.float().transpose(-2, -1) * factor
        if is_causal:
            later = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).triu(1)
            scores = scores.masked_fill(later[rows], -math.inf)
        if attn_mask is not None:
            mask = attn_mask[..., rows, :] if attn_mask.ndim > 1 and attn_mask.shape[-2] > 1 else attn_mask
            scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
        return scores.softmax(-1)


def _dimension(args: Any, kwargs: Any) -> Any:
    return kwargs.get("dim", args[1] if len(args) > 1 else None)
