"""The attention that a block really computes, seen as it is computed, whatever stands around the block's parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_SOFTMAX = (torch.softmax, Tensor.softmax, functional.softmax)


class AttentionSeen(TorchFunctionMode):
    """Notes the attention weights (B, H, N, N) that are computed while ``tokens`` is N, from calls of PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: int | None = None
        self.weights: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call what is called, and read weights from it."""
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        found: Tensor | None = None
        if self.tokens is not None:
            if func is functional.scaled_dot_product_attention:
                found = _weights(*args, **kwargs)
            elif func in _SOFTMAX:
                found = output.detach().cpu().double()
            if found is not None and found.ndim == 4 and found.shape[-2:] == (self.tokens, self.tokens):
                self.weights.append(found)
        return output


def _weights(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Softmax of the logits, by the definition in PyTorch's documentation."""
    q, k = (each.detach().cpu().double() for each in (query, key))
    if enable_gqa:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    logits = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        logits = logits.masked_fill(~torch.ones(logits.shape[-2:], dtype=torch.bool).tril(), float("-inf"))
    if attn_mask is not None:
        mask = attn_mask.detach().cpu()
        logits = logits.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else logits + mask
    return logits.softmax(-1)
