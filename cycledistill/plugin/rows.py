"""Pick tokens of a state by number, and put them back: indices to flat rows.

Pruning (tokens) and the hourglass (frames) both drop rows of a state, and neither may import the other: what they
share of it stands here. No other part of a plug-in needs it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def with_first(index: Tensor, first: int) -> Tensor:
    """Positions (B, first + k) in a state, of its first tokens and of ``index`` (B, k) among the others."""
    front = torch.arange(first, device=index.device).expand(index.shape[0], first)
    return torch.cat((front, index + first), dim=1)


def flat_rows(index: Tensor, tokens: int) -> Tensor:
    """Row numbers (B * k,) of positions ``index`` (B, k) in a (B, tokens, C) state seen as B * tokens rows."""
    offset = torch.arange(index.shape[0], device=index.device).unsqueeze(1) * tokens
    return (index + offset).flatten()


def rows_that_stay(local: Tensor, first: int, tokens: int) -> Tensor:
    """Flat rows (B * (first + k),) of the first tokens of a (B, tokens, C) state and of ``local`` (B, k) of the others.

    What ``flat_rows(with_first(local, first), tokens)`` gives, in three kernels for six: on a GPU each is a launch.
    """
    grid = torch.arange(local.shape[0] * tokens, device=local.device).view(-1, tokens)
    return torch.cat((grid[:, :first], grid[:, first : first + 1] + local), dim=1).flatten()


def take_rows(state: Tensor, rows: Tensor) -> Tensor:
    """The tokens (B, k, C) of ``state`` (B, N, C) whose flat row numbers are ``rows`` (B * k,)."""
    batch, _, channels = state.shape
    return state.reshape(-1, channels).index_select(0, rows).view(batch, -1, channels)


def put_rows(tokens: Tensor, rows: Tensor, number: int) -> Tensor:
    """A (B, number, C) state of zeros with ``tokens`` (B, k, C) at the flat row numbers ``rows``."""
    batch, _, channels = tokens.shape
    empty = tokens.new_zeros(batch * number, channels)
    return empty.index_copy_(0, rows, tokens.reshape(-1, channels)).view(batch, number, channels)
