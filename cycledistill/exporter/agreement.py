"""How near the answers of two files are to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cycledistill.exporter.errors import ExportError


@dataclass(frozen=True)
class Agreement:
    """How near one output is to the original's.

    Attributes:
        relative: Root mean square of the difference over that of the original; ``nan`` where one is not finite.
        same: Of classes (B, classes), the share of samples with the same largest one; of maps (B, K, H, W), the share
            of maps whose largest value is at the same place. ``None`` for other outputs.
    """

    relative: float
    same: float | None = None

    def __str__(self) -> str:
        """Both in words."""
        same = "" if self.same is None else f"; the largest value is the same one in {self.same:.1%}"
        return f"differs by {self.relative:.2%} of the original (root mean square){same}"


def agreement(original: Any, other: Any, batches: Sequence[dict[str, Any]]) -> dict[str, Agreement]:
    """Run two ONNX Runtime sessions of the same inputs and outputs, and compare each floating-point output.

    Args:
        original: The session whose outputs count as right.
        other: The session to judge.
        batches: Inputs by name.

    Raises:
        ExportError: No output is in floating point.
    """
    names = [entry.name for entry in original.get_outputs()]
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in names}
    for batch in batches:
        for name, a, b in zip(names, original.run(names, batch), other.run(names, batch), strict=True):
            if torch.as_tensor(a).is_floating_point():
                pairs[name].append((torch.as_tensor(a).double(), torch.as_tensor(b).double()))
    found = {name: compare_outputs(*map(list, zip(*each, strict=True))) for name, each in pairs.items() if each}
    if not found:
        raise ExportError("the file has no output in floating point to compare")
    return found


def compare_outputs(original: list[Tensor], other: list[Tensor]) -> Agreement:
    """Compare an output over batches.

    Example:
        >>> compare_outputs([torch.tensor([[3.0, 4.0]])], [torch.tensor([[3.0, 4.5]])])
        Agreement(relative=0.1, same=1.0)
    """
    gap = sum(float((a - b).square().sum()) for a, b in zip(original, other, strict=True))
    scale = sum(float(a.square().sum()) for a in original)
    relative = (gap / scale) ** 0.5 if scale else (0.0 if gap == 0 else float("inf"))
    places = [_largest(a) == _largest(b) for a, b in zip(original, other, strict=True) if a.ndim in (2, 4)]
    return Agreement(relative, float(torch.cat(places).double().mean()) if places else None)


def _largest(x: Tensor) -> Tensor:
    return (x if x.ndim == 2 else x.flatten(0, 1).flatten(1)).argmax(-1)
