"""How near the answers of two files are to each other."""

from __future__ import annotations

import math
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
        relative: Root mean square of the difference over that of the original. Infinities of one sign agree; ``nan``
            where one is nan, and where there is nothing to compare.
        same: Of classes (B, classes), the share of samples with the same largest one; of maps (B, K, H, W), the share
            of maps whose largest value is at the same place; never where one is nan. ``None`` for other outputs.
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
        ExportError: No output is in floating point, or one holds no numbers, or nan in one of the two.
    """
    names = [entry.name for entry in original.get_outputs()]
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in names}
    for batch in batches:
        for name, a, b in zip(names, original.run(names, batch), other.run(names, batch), strict=True):
            if torch.as_tensor(a).is_floating_point():
                pairs[name].append((torch.as_tensor(a).double(), torch.as_tensor(b).double()))
    answers = {name: [list(each) for each in zip(*both, strict=True)] for name, both in pairs.items() if both}
    if not answers:
        raise ExportError("the file has no output in floating point to compare")
    for name, (right, judged) in answers.items():
        if not any(each.numel() for each in right):
            raise ExportError(f"output {name} holds no numbers with these inputs, so there is nothing to compare")
        if any(bool(each.isnan().any()) for each in right):
            raise ExportError(f"output {name} of the original is nan with these inputs, to which no file is compared")
        if any(bool(each.isnan().any()) for each in judged):
            raise ExportError(f"output {name} of the new file is nan with these inputs, and the original's is not")
    return {name: compare_outputs(*each) for name, each in answers.items()}


def compare_outputs(original: list[Tensor], other: list[Tensor]) -> Agreement:
    """Compare an output over batches.

    Example:
        >>> compare_outputs([torch.tensor([[3.0, 4.0]])], [torch.tensor([[3.0, 4.5]])])
        Agreement(relative=0.1, same=1.0)
    """
    pairs = [(a, b) for a, b in zip(original, other, strict=True) if a.numel()]
    gap = sum(float((a - b)[a != b].square().sum()) for a, b in pairs)  # inf - inf is no difference
    scale = sum(float(a[a.isfinite()].square().sum()) for a, _ in pairs)
    if not pairs or math.isnan(gap):
        relative = math.nan
    else:
        relative = (gap / scale) ** 0.5 if scale else (0.0 if gap == 0 else math.inf)
    places = [_same_place(a, b) for a, b in pairs if a.ndim in (2, 4)]
    return Agreement(relative, float(torch.cat(places).double().mean()) if places else None)


def _same_place(a: Tensor, b: Tensor) -> Tensor:
    """Whether the largest values of each sample's classes, or of each map, are at one place; nan is nowhere."""
    a, b = (x if x.ndim == 2 else x.flatten(0, 1).flatten(1) for x in (a, b))
    return (a.argmax(-1) == b.argmax(-1)) & ~(a.isnan() | b.isnan()).any(-1)
