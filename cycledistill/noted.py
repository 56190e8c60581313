"""A value as it was when it was noted, and whether it, or what it holds, was changed in place since."""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree


class Noted:
    """Leaves, how they were put together, and how often each tensor had been changed in place.

    Lists and dicts are noted as what they held: the model may append to them, and a replay must not find that.
    """

    def __init__(self, value: Any) -> None:
        self.leaves, self.spec = pytree.tree_flatten(value)
        self.versions = versions(self.leaves)

    def value(self) -> Any:
        """What was noted; containers are made anew."""
        return pytree.tree_unflatten(self.leaves, self.spec)

    def changed(self) -> bool:
        """Whether a tensor was changed in place since."""
        # Nothing was noted where the module ran in compiled code; after a graph break the check may yet run.
        now = versions(self.leaves)
        return bool(self.versions and now) and self.versions != now

    def changed_at(self, place: int) -> bool:
        """Whether the tensor at one place was changed in place since."""
        now = versions(self.leaves)
        return bool(self.versions and now) and self.versions[place] != now[place]

    def holds(self, value: Any) -> bool:
        """Whether ``value`` holds the very same leaves, put together alike."""
        leaves, spec = pytree.tree_flatten(value)
        return spec == self.spec and all(a is b for a, b in zip(leaves, self.leaves, strict=True))


def versions(leaves: list[Any]) -> tuple[int, ...]:
    """How often each leaf was changed in place; nothing under a compiler, which cannot tell."""
    if torch.compiler.is_compiling():
        return ()
    return tuple(leaf._version if isinstance(leaf, torch.Tensor) and not leaf.is_inference() else -1 for leaf in leaves)


def watching() -> bool:
    """Whether values can be looked at: neither compiled nor traced."""
    return not (torch.compiler.is_compiling() or torch._C._is_tracing())


def same_value(a: Any, b: Any) -> bool:
    """Whether two leaves are the same to rounding; where values cannot be read (meta, vmap) shapes decide."""
    if a is b:
        return True
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        try:
            return _near(a.detach(), b.detach())
        except (RuntimeError, NotImplementedError):  # meta, fake, functorch and nested tensors have no values to read
            return True
    if isinstance(a, (str, numbers.Number)) and isinstance(b, (str, numbers.Number)):
        return a == b
    return type(a) is type(b)


def _near(a: torch.Tensor, b: torch.Tensor) -> bool:
    if torch.equal(a, b):
        return True
    if not (a.is_floating_point() or a.is_complex()):
        return False
    # Some kernels sum in another order each time.
    few = 16 * torch.finfo(a.dtype).eps
    largest = float(a.abs().nan_to_num(0, 0, 0).max())
    return torch.allclose(a, b, rtol=few, atol=few * largest, equal_nan=True)


def opaque(leaves: list[Any]) -> list[Any]:
    """Objects among the leaves that may hold tensors out of sight, such as a cache of keys and values."""
    known = (torch.Tensor, nn.Module, str, numbers.Number, type, type(None), torch.dtype, torch.device)
    return [leaf for leaf in leaves if not isinstance(leaf, known) and hasattr(leaf, "__dict__") and not callable(leaf)]


def held(value: Any) -> list[tuple[int, int]]:
    """Identity and version of every tensor that an object holds, also in the objects it holds."""
    return [(id(tensor), tensor._version) for tensor in _tensors(value, 4)]


def _tensors(value: Any, depth: int) -> Iterator[torch.Tensor]:
    for leaf in pytree.tree_leaves(value):
        if isinstance(leaf, torch.Tensor):
            yield leaf
        elif depth and hasattr(leaf, "__dict__") and not isinstance(leaf, (nn.Module, type)):
            yield from _tensors(vars(leaf), depth - 1)
