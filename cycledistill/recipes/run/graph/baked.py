"""The Python numbers that a step reads: a graph keeps those it was captured with, so that others need another graph."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from torch import nn

from cycledistill.plugin.install import handle_of

_PLAIN = {bool, int, float, str, type(None)}
_SETTINGS = {"cyclic": ("cycles", "distill"), "pruning": ("keep",), "hourglass": ("noise",)}
"""What a training loop may set on a handle: its kind -> names."""

_OWN = vars(nn.Module()).keys() - {"training"}
"""What every module has, and no schedule sets."""


class BakedNumbers:
    """Numbers, flags and words among the attributes of a task's modules, its handles' settings, and the optimiser's.

    Rates of drop path, the fraction of tokens kept, weights of distillation: whatever a schedule may set. The learning
    rate is a tensor, and so not among them.

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

    def now(self) -> tuple[Hashable, ...]:
        """All values as they are; equal tuples mean that one graph serves."""
        values = [holder.get(name) for _, holder, name in self._places]  # in every step: some hundreds of them
        values += [getattr(handle, name) for _, handle, name in self._handles]
        return tuple([each if type(each) in _PLAIN else _hashable(each) for each in values])

    def difference(self, before: tuple[Hashable, ...], after: tuple[Hashable, ...]) -> str:
        """The first value that differs, in words; empty where none does."""
        names = [path for path, _, _ in self._places + self._handles]
        for name, old, new in zip(names, before, after, strict=True):
            if old != new:
                return f"{name}, {old} -> {new}"
        return ""


@dataclass(frozen=True)
class _Compared:
    """A value beside what it is compared by. It is kept, so that no other gets its place in memory."""

    value: Any = field(compare=False)
    by: Hashable

    def __str__(self) -> str:
        return str(self.value)


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
    return type(value) in _PLAIN or (type(value) is tuple and all(type(each) in _PLAIN for each in value))


def _hashable(value: Any) -> Hashable:
    """Plain data and dataclasses by what they hold, all else by what it is."""
    if _is_plain(value):
        return value
    if isinstance(value, dict):
        return _Compared(value, tuple((key, _hashable(each)) for key, each in value.items()))
    if is_dataclass(value):
        return _Compared(value, tuple(_hashable(getattr(value, each.name)) for each in fields(value)))
    return _Compared(value, id(value))
