"""The plain model: the same object with every module's own class, so whatever stands around it stands there too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from cycledistill.plugin.swap import Swapped, swapped_since
from cycledistill.verification.table import NotChecked


@contextmanager
def plain(model: nn.Module) -> Iterator[None]:
    """Inside the context no plug-in acts in ``model``; hooks, adapters and what else there is stay.

    Raises:
        NotChecked: Another tool derived a class from a plug-in's, and neither can be taken off alone.
    """
    classes = [(module, type(module)) for module in model.modules() if isinstance(module, Swapped)]
    for module, kind in classes:
        if swapped_since(module) is not None:
            raise NotChecked(
                f"another tool made a {kind.__name__} of a wrapped module since, so the plain model cannot be had: "
                "verify before that tool comes"
            )
    try:
        for module, kind in classes:
            module.__class__ = own_class(kind)
        yield
    finally:
        for module, kind in classes:
            module.__class__ = kind


def own_class(kind: type) -> type:
    """A module's own class: the first among its ancestors that no plug-in made."""
    return next(each for each in kind.__mro__ if not issubclass(each, Swapped))


@dataclass(frozen=True)
class Place:
    """Where a stack stands: its container, and which of its children are the blocks; one module has no container."""

    container: nn.Module | None
    start: int
    stop: int
    blocks: tuple[nn.Module, ...]


def find_place(model: nn.Module, path: str) -> Place:
    """The blocks that now stand at ``path``, such as ``"encoder.layers"`` or ``"blocks[2:8]"``."""
    parsed = re.fullmatch(r"([^\[\]]+)(?:\[(\d*):(\d*)\])?", path)
    assert parsed is not None, path
    try:
        found = model.get_submodule(parsed[1])
    except AttributeError:
        raise NotChecked(f"there is no module {parsed[1]} any more: the model was edited after wrapping") from None
    if not isinstance(found, (nn.ModuleList, nn.Sequential)):
        return Place(None, 0, 1, (found,))
    children = tuple(found.children())
    start, stop = int(parsed[2] or 0), int(parsed[3] or len(children))
    return Place(found, start, stop, children[start:stop])
