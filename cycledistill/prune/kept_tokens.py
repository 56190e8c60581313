"""Which tokens are kept: a mark on the tensor that holds them, and the parts of other arguments that belong to them.

The mark travels as an attribute of the tensor that a block hands to the next. So a block knows what enters it
whoever calls: the model, a further cycle, or the recomputation of a checkpoint in the backward of an earlier forward.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cycledistill.errors import StackError
from cycledistill.plugin.rows import flat_rows, take_rows, with_first

_MARK = "_cycledistill_kept"


@dataclass(frozen=True)
class KeptTokens:
    """The tokens that a tensor (B, first + k, C) still holds.

    One word for one thing, here and for the kept frames of an hourglass: ``index`` counts in the full grid, where
    nothing was dropped yet; ``local`` counts among what entered the block that drops; both leave out the first tokens.

    Attributes:
        index: (B, k), the kept ones among the ``total - first`` droppable tokens of the full grid, in present order.
        first: Tokens in front that are never dropped.
        total: Tokens of the full grid, the first ones included.
        block: Number of the block that returned the tensor.
        again: Whether it did so in a further cycle, which drops no more.
        taken: Arguments and the parts of them that belong to these tokens: most models hand the same to all blocks.
    """

    index: Tensor
    first: int
    total: int
    block: int
    again: bool = False
    taken: list[tuple[Tensor, Tensor]] = field(default_factory=list, compare=False, repr=False)

    def then(self, local: Tensor, block: int) -> KeptTokens:
        """What is kept after ``block`` kept ``local`` (B, k) of these."""
        return KeptTokens(self.index.gather(1, local), self.first, self.total, block)

    def of_samples(self, rows: Tensor) -> KeptTokens:
        """What is kept of the samples at ``rows`` (n,) of the batch: the mark of a tensor that holds these alone."""
        return self.of_index(self.index.index_select(0, rows))

    def of_index(self, index: Tensor) -> KeptTokens:
        """The same of other samples, whose kept tokens are ``index`` (n, k)."""
        return KeptTokens(index, self.first, self.total, self.block, self.again)

    def all_index(self) -> Tensor:
        """(B, first + k): every kept token, the first ones included, among all ``total`` of the full grid."""
        return with_first(self.index, self.first)


def mark_kept_tokens(tokens: Tensor, kept: KeptTokens) -> None:
    """Mark on ``tokens`` which ones they are."""
    setattr(tokens, _MARK, kept)


def kept_tokens_of(tokens: Tensor) -> KeptTokens | None:
    """Which ones ``tokens`` are, or ``None`` where none was dropped."""
    return getattr(tokens, _MARK, None)


def take_argument(name: str, value: Any, kept: KeptTokens) -> Any:
    """The part of a block's argument that belongs to the kept tokens.

    Token axes are told by length: that of the full grid, or of its droppable tokens. Served are per-token tables
    (..., N, C), rotary tables (a name with "rope": (N, C), (H, N, C) or (B, H, N, C), as timm passes them), and masks
    or biases (a name with "mask" or "bias": (N, N), (H, N, N), (B, H, N, N), (B, H, 1, N), (B, N)). Anything else
    is passed on as it is. ``name`` is that of the parameter in the block's forward.
    """
    if not isinstance(value, Tensor) or value.ndim < 2:
        return value
    if value.requires_grad or torch.compiler.is_compiling():  # a part with a history belongs to one block alone
        return _part(name, value, kept)
    for known, part in kept.taken:
        if known is value:
            return part
    part = _part(name, value, kept)
    kept.taken.append((value, part))
    return part


def _part(name: str, value: Tensor, kept: KeptTokens) -> Tensor:
    if "mask" in name or "bias" in name:
        return _take_mask(value, kept)
    lengths = {kept.total: kept.all_index, kept.total - kept.first: lambda: kept.index}
    if value.shape[-2] not in lengths:
        return value
    index = lengths[value.shape[-2]]()
    if value.ndim > 2 and "rope" not in name and value.shape[0] not in (1, index.shape[0]):
        raise StackError(
            f"pruning cannot tell the axes of the block argument {name!r}, {tuple(value.shape)}: a table per token has "
            f"the axes (N, C), (1, N, C) or (B, N, C), and the batch is {index.shape[0]}"
        )
    if "rope" in name:  # heads are an axis of their own
        return _take(value.reshape((1,) * (4 - value.ndim) + value.shape), -2, index)
    if value.ndim == 3 and value.shape[0] > 1:
        return take_rows(value, flat_rows(index, value.shape[1]))
    if value.ndim == 2 or value.shape[:-2].numel() == 1:
        table = value.reshape(value.shape[-2:])
        taken = table.index_select(0, index.flatten())
        return taken.view(index.shape[0], *value.shape[1:-2], index.shape[1], value.shape[-1])
    return _take(value, -2, index)


def _take_mask(mask: Tensor, kept: KeptTokens) -> Tensor:
    index = kept.all_index()
    axes = [axis for axis in (-2, -1) if mask.shape[axis] == kept.total]
    if len(axes) == 2 and mask.ndim < 4:
        mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
    for axis in axes:
        mask = _take(mask, axis, index)
    return mask


def _take(value: Tensor, axis: int, index: Tensor) -> Tensor:
    """Entries ``index`` (B, k) of ``value`` along an axis; its first axis is the batch, or 1 for all of it."""
    batch, number = index.shape
    shape = [batch, *value.shape[1:]]
    view = [1] * value.ndim
    view[0], view[axis] = batch, number
    spread = list(shape)
    spread[axis] = number
    return value.expand(shape).gather(axis, index.view(view).expand(spread))
