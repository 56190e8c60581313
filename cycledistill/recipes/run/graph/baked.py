"""The Python numbers that a step reads: a graph keeps those it was captured with, so that others need another graph."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from numbers import Number
from typing import Any

import numpy as np
from torch import Tensor, nn

from cycledistill.plugin.install import handle_of

_PLAIN = {bool, int, float, str, type(None)}
_ONE = (Number, np.generic, str, type(None))
_SETTINGS = {"cyclic": ("cycles", "distill"), "pruning": ("keep",), "hourglass": ("noise",)}
"""What a training loop may set on a handle: its kind -> names."""

_OWN = vars(nn.Module()).keys() - {"training"}
"""What every module has, and no schedule sets."""


class BakedNumbers:
    """Numbers, flags and words among the attributes of a task's modules, its handles' settings, and the optimiser's.

    Rates of drop path, the fraction of tokens kept, weights of distillation, which parameters are trained: whatever a
    schedule may set, alone or in lists, dictionaries and arrays. The learning rate is a tensor, and so not among
    them. Choose them after a step was run: an attribute that holds a tensor or a module then, as a kept activation, is
    none.

    Args:
        task: What is trained.
        optimizer: Over its parameters.
    """

    def __init__(self, task: nn.Module, optimizer: Any) -> None:
        self._places = list(_places(task, optimizer))
        self._handles = [
            (f"{path}.{name}".lstrip("."), handle, name)
            for path, module in task.named_modules()
            for kind, names in _SETTINGS.items()
            if (handle := handle_of(module, kind)) is not None
            for name in names
        ]
        self._parameters = [(f"{name}.requires_grad", parameter) for name, parameter in task.named_parameters()]

    def now(self) -> tuple[Hashable, ...]:
        """All values as they are; equal tuples mean that one graph serves."""
        values = [holder.get(name) for _, holder, name in self._places]  # in every step: some hundreds of them
        found = [each if type(each) in _PLAIN else _hashable(each) for each in values]
        found += [_hashable(getattr(handle, name), kept=True) for _, handle, name in self._handles]
        return (*found, *[parameter.requires_grad for _, parameter in self._parameters])

    def difference(self, before: tuple[Hashable, ...], after: tuple[Hashable, ...], may_begin: bool = False) -> str:
        """The first value that differs, in words; empty where none does. With ``may_begin`` None may become any."""
        names = [each[0] for each in (*self._places, *self._handles, *self._parameters)]
        for name, old, new in zip(names, before, after, strict=True):
            if old != new and not (may_begin and old is None):
                return f"{name}, {old} -> {new}"
        return ""


@dataclass(frozen=True)
class _Compared:
    """A value that is told by its type, and compared by something else."""

    kind: str
    by: Hashable
    value: Any = field(default=None, compare=False)
    """What is compared by its place in memory is kept, so that no other gets that."""

    def __str__(self) -> str:
        return self.kind


def _places(task: nn.Module, optimizer: Any) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Path, the mapping that holds the value, and its key there."""
    for path, module in task.named_modules():
        for name, value in vars(module).items():
            if _is_plain(value) and name not in _OWN:
                yield f"{path}.{name}".lstrip("."), vars(module), name
    for number, group in enumerate(optimizer.param_groups):
        for name, value in group.items():
            if name != "lr" and _is_plain(value):
                yield f"optimizer.param_groups[{number}].{name}", group, name


def _is_plain(value: Any) -> bool:
    """Whether it is a number, a flag, a word or None, or holds nothing else."""
    inside = _inside(value)
    return isinstance(value, _ONE) if inside is None else all(_is_plain(each) for each in inside)


def _inside(value: Any) -> list[Any] | None:
    """What a value that holds several holds, keys as well; None for all else."""
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, np.ndarray):
        return list(value.flat)
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else None


def _hashable(value: Any, kept: bool = False) -> Hashable:
    """Plain data, dataclasses and what holds several by what they hold, all else by what it is.

    A tensor or a module is None, unless it is ``kept``.
    """
    if isinstance(value, _ONE) or (type(value) is tuple and all(type(each) in _PLAIN for each in value)):
        return value
    if isinstance(value, (Tensor, nn.Module)) and not kept:
        return None
    kind, inside = type(value).__name__, _inside(value)
    if inside is None and is_dataclass(value):
        inside = [getattr(value, each.name) for each in fields(value)]
    if inside is None:
        return _Compared(kind, id(value), value)
    return _Compared(kind, tuple(_hashable(each, kept) for each in inside))
