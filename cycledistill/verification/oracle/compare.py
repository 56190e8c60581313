"""How far two results are apart."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cycledistill.plugin.torch_private import tree_leaves
from cycledistill.verification.table import Failed, NotChecked

_TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""What rounding may make of the same sums in another order, relative to the largest value."""

GRADIENTS = 10.0
"""How much more rounding a gradient gathers: it sums over tokens, samples and cycles."""


def check_same(got: Any, want: Any, exact: bool = False, factor: float = 1.0, what: str = "") -> float:
    """The largest difference of two nested results, relative to the largest value of each tensor of the truth.

    Raises:
        Failed: They differ by more than rounding; with ``exact``, in any bit.
        NotChecked: The truth is not finite, or holds no numbers.
    """
    ours, truth = _values(got), _values(want)
    if len(ours) != len(truth):
        raise Failed(f"{what}{len(ours)} tensors and numbers where {len(truth)} are expected", math.inf)
    tensors = [leaf for leaf in truth if isinstance(leaf, Tensor)]
    if not tensors:
        raise NotChecked(f"{what}the plain model returns no tensor")
    if not any(leaf.numel() for leaf in tensors):
        raise NotChecked(f"{what}the plain model returns no numbers with these inputs, and nothing equals nothing")
    worst = 0.0
    for a, b in zip(ours, truth, strict=True):
        if not isinstance(b, Tensor):
            if type(a) is not type(b) or a != b:
                raise Failed(f"{what}{a!r} where {b!r} is expected", math.inf)
            continue
        if not isinstance(a, Tensor) or a.shape != b.shape or a.dtype != b.dtype:
            raise Failed(f"{what}{_kind(a)} where {_kind(b)} is expected", math.inf)
        worst = max(worst, _apart(a, b, exact, factor, what))
    return worst


def tolerance_of(dtype: torch.dtype) -> float:
    """The difference that rounding may make."""
    return _TOLERANCES.get(dtype, 1e-5)


def is_same(a: Any, b: Any) -> bool:
    """Whether two results agree in every bit."""
    try:
        check_same(a, b, exact=True)
    except Failed:
        return False
    return True


def _apart(a: Tensor, b: Tensor, exact: bool, factor: float, what: str) -> float:
    a, b = a.detach().cpu(), b.detach().cpu()  # not every device has double precision
    if not b.is_floating_point() and not b.is_complex():
        if not torch.equal(a, b):
            raise Failed(f"{what}other whole numbers", math.inf)
        return 0.0
    if not b.numel():
        return 0.0
    if not bool(torch.isfinite(b).all()):
        raise NotChecked(f"{what}the plain model's own result is not finite with these inputs")
    wide = torch.complex128 if b.is_complex() else torch.float64
    gap, scale = float((a.to(wide) - b.to(wide)).abs().max()), float(b.abs().max())
    relative = gap / scale if scale else (0.0 if gap == 0 else math.inf)
    allowed = 0.0 if exact else factor * tolerance_of(b.dtype)
    if not relative <= allowed:  # nan is not
        raise Failed(f"{what}beyond {'equality' if exact else f'rounding ({allowed:.0e})'}", relative)
    return relative


def _values(tree: Any) -> list[Any]:
    kinds = (Tensor, int, float, bool)
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, kinds)]


def _kind(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
