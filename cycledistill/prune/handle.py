"""The handle ``model.pruning``: its settings and the tokens kept."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from cycledistill.errors import StackError
from cycledistill.plugin.handle import Handle
from cycledistill.plugin.torch_private import is_vmapped
from cycledistill.stack.find import Stack


class Pruning(Handle):
    """The handle ``model.pruning`` of a pruned model. It holds no parameters and no module."""

    kind = "pruning"

    def __init__(self, stack: Stack, layers: tuple[int, ...], keep: float, query: slice, first: int) -> None:
        self._stack, self._layers = stack, layers
        self._keep = _fraction(keep)
        self.query, self.first = query, first
        self._index: Tensor | None = None
        self.is_verified = True
        """Whether a trial ran the blocks; else the first forward verifies what pruning assumes of them."""

    @property
    def stack(self) -> Stack:
        """The blocks: ``.path`` and ``.depth``."""
        return self._stack

    @property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the blocks that drop tokens, from 0, ascending."""
        return self._layers

    @property
    def keep(self) -> float:
        """The fraction of the droppable tokens that each of these blocks keeps; settable between forwards.

        It is a setting, not a mode: training and evaluation prune alike. At 1.0 nothing is dropped, bit for bit.
        """
        return self._keep

    @keep.setter
    def keep(self, keep: float) -> None:
        self._keep = _fraction(keep)

    @property
    def index(self) -> Tensor | None:
        """Tokens kept at the end of the last forward: (B, k) positions among the droppable tokens, best score first.

        ``None`` before the first forward, and after one in which nothing was dropped.
        """
        return self._index

    def show(self, index: Tensor | None) -> None:
        """Keep which tokens are kept so far in this forward, for :attr:`index`."""
        # While a model is exported, or under vmap, what arrives here is a stand-in without data.
        self._index = index if type(index) is Tensor and not is_vmapped() else None

    def count(self, number: int) -> int:
        """How many of ``number`` droppable tokens a block keeps: ``ceil(number * keep)``."""
        return math.ceil(number * self._keep - 1e-9)  # 100 * 0.07 is 7.000000000000001 in floating point

    def described(self, model: nn.Module) -> dict[str, Any]:
        """Arguments of ``wrap_pruning``."""
        return {
            "blocks": self._stack.path,
            "depth": self._stack.depth,
            "layers": list(self._layers),
            "keep": self._keep,
            "query": [self.query.start, self.query.stop],
        }

    def __repr__(self) -> str:
        query = f"{self.query.start}:{self.query.stop}"
        return f"Pruning({self._stack.path} at {self._layers}, keep={self._keep}, query={query}, first={self.first})"


def _fraction(keep: float) -> float:
    if isinstance(keep, bool) or not isinstance(keep, (int, float)) or not 0 < keep <= 1:
        raise StackError(f"keep={keep!r}: a fraction of the tokens is expected, above 0 and at most 1")
    return float(keep)
