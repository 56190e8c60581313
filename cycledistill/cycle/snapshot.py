"""A value as it was when it was recorded, and whether it, or what it holds, was changed in place since."""

from __future__ import annotations

import numbers
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from cycledistill.plugin.torch_private import tree_flatten, tree_leaves, tree_unflatten, versions

MAX_DEPTH = 4
"""How many objects and closures are opened, one inside the other, to find tensors in an argument of a block.

A cache of keys and values takes two (cache, layer), the pair of caches of an encoder-decoder three, a closure over that
pair four. The bound also ends the search in objects that hold each other.
"""


class Snapshot:
    """Leaves, how they were put together, and how often each tensor had been changed in place.

    Lists and dicts are recorded by their content: the model may append to them, and a replay must not find that.
    """

    def __init__(self, value: Any) -> None:
        self.leaves, self.spec = tree_flatten(value)
        self.versions = versions(self.leaves)

    def value(self) -> Any:
        """What was recorded; containers are made anew."""
        return tree_unflatten(self.leaves, self.spec)

    def changed(self) -> list[int]:
        """The numbers of the leaves that were changed in place since."""
        # Not strict: compiled code has no versions, and after a graph break only one of the two may be empty.
        both = zip(self.versions, versions(self.leaves), strict=False)
        return [number for number, (before, now) in enumerate(both) if before != now]

    def holds(self, value: Any) -> bool:
        """Whether ``value`` holds the very same leaves, put together alike."""
        leaves, spec = tree_flatten(value)
        return spec == self.spec and all(a is b for a, b in zip(leaves, self.leaves, strict=True))


def plain(container: list[Any] | dict[Any, Any]) -> Any:
    """The items of a container, whatever class derived from list or dict it is."""
    return dict(container) if isinstance(container, dict) else list(container)


def same_value(a: Any, b: Any) -> bool:
    """Whether two leaves are the same to rounding; where values cannot be read (meta, vmap) shapes decide."""
    if a is b:
        return True
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        try:
            return _near(a.detach(), b.detach())
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, NotImplementedError):  # meta, fake, functorch and nested tensors have no values to read
            return True
    if isinstance(a, (str, numbers.Number)) and isinstance(b, (str, numbers.Number)):
        return bool(a == b or (a != a and b != b))  # two that are NaN are the same
    if type(a) is not type(b):
        return False
    return type(a).__module__ != "numpy" or (a.shape == b.shape and bool((a == b).all()))


def _near(a: torch.Tensor, b: torch.Tensor) -> bool:
    if torch.equal(a, b):
        return True
    if not (a.is_floating_point() or a.is_complex()):
        return False
    # Some kernels sum in another order each time.
    few = 16 * torch.finfo(a.dtype).eps
    largest = float(a.abs().nan_to_num(0, 0, 0).max())
    return torch.allclose(a, b, rtol=few, atol=few * largest, equal_nan=True)


def objects_with_hidden_tensors(leaves: list[Any]) -> list[Any]:
    """Objects among the leaves that may hold tensors out of sight: a cache of keys and values, a closure."""
    known = (torch.Tensor, nn.Module, str, numbers.Number, type, type(None), torch.dtype, torch.device, list, dict)
    return [leaf for leaf in leaves if not isinstance(leaf, known) and hasattr(leaf, "__dict__")]


class ObjectSnapshot:
    """What an object among the arguments held when it was recorded: tensors and numbers, to `MAX_DEPTH`."""

    def __init__(self, owner: Any) -> None:
        self.owner, self.values = owner, list(_values(owner))
        self.versions = versions(self.values)

    def changed(self) -> bool:
        """Whether the object holds something else now, or the same changed in place."""
        now = list(_values(self.owner))
        same = len(now) == len(self.values) and all(
            a is b if isinstance(a, torch.Tensor) else same_value(a, b) for a, b in zip(now, self.values, strict=True)
        )
        return not same or versions(now) != self.versions

    def like(self, other: Any) -> bool:
        """Whether another object holds the same values."""
        values = list(_values(other))
        return len(values) == len(self.values) and all(map(same_value, self.values, values))


def _values(value: Any, depth: int = MAX_DEPTH) -> Iterator[Any]:
    """The tensors and numbers inside a value: in containers, attributes, and what functions close over."""
    for leaf in tree_leaves(value):
        if isinstance(leaf, (torch.Tensor, numbers.Number)):
            yield leaf
        elif depth and isinstance(leaf, types.FunctionType):
            cells = [cell.cell_contents for cell in leaf.__closure__ or () if cell != types.CellType()]
            yield from _values([cells, leaf.__defaults__ or (), leaf.__kwdefaults__ or {}], depth - 1)
        elif depth and hasattr(leaf, "__dict__") and not isinstance(leaf, (nn.Module, type, types.ModuleType)):
            yield from _values(vars(leaf), depth - 1)
