"""Swap the class of a live module in place, and put it back.

A plug-in adds behaviour to a module by giving it a class derived from its own. Parameters, buffers, hooks, keys and
identity stay what they were; ``isinstance`` holds, the class keeps its name, and pickling rebuilds it. Plug-ins of
several kinds may sit on one module: they nest by :attr:`Swapped.swap_order`, whatever the order of the calls.
"""

from __future__ import annotations

import copyreg
import threading
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize


_Module = TypeVar("_Module", bound=nn.Module)

_classes: dict[tuple[type, tuple[type[Swapped], ...]], type] = {}
_lock = threading.Lock()


class Swapped:
    """Base of every plug-in class that :func:`swap` puts in front of a module's own class."""

    swap_order: ClassVar[int] = 0
    """Nesting: the lowest number is outermost."""

    @classmethod
    def namespace(cls, below: type) -> dict[str, Any]:
        """Attributes of the composed class that depend on the class it derives from (a wrapped ``forward``, say)."""
        return {}

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The composed class has no importable name, so pickle and deepcopy are told how to compose it again.
        reduced = super().__reduce_ex__(protocol)
        recipe = type(self).__dict__.get("_swap_recipe")
        if recipe is None or not isinstance(reduced, tuple) or reduced[0] is not copyreg.__newobj__:  # type: ignore[attr-defined]
            return reduced
        return (_rebuild, recipe, *reduced[2:])


def swap(module: nn.Module, plugin: type[Swapped]) -> None:
    """Give ``module`` the behaviour of ``plugin``, in place.

    Raises:
        TypeError: Python cannot change the class of this object (a scripted or parametrized module, a class with
            slots).
    """
    if isinstance(module, torch.jit.ScriptModule):  # takes a class without an error, and keeps its own
        raise TypeError("it is scripted or traced")
    if parametrize.is_parametrized(module):  # torch takes its own class off by the order of bases, which ours changes
        raise TypeError(
            "it is parametrized (remove_parametrizations makes it plain, and it can be parametrized after wrapping)"
        )
    base, plugins = recipe_of(module)
    ordered = tuple(sorted((*plugins, plugin), key=lambda each: each.swap_order))
    module.__class__ = _compose(base, ordered)


def unswap(module: nn.Module, plugin: type[Swapped]) -> None:
    """Take ``plugin`` off ``module`` again; the original class itself returns when it was the last one."""
    base, plugins = recipe_of(module)
    module.__class__ = _compose(base, tuple(each for each in plugins if each is not plugin))


def bare(model: _Module) -> _Module:
    """Give every module inside ``model`` its own class, without any plug-in; meant for copies."""
    for module in model.modules():
        module.__class__ = recipe_of(module)[0]
    return model


def swapped_since(module: nn.Module) -> str | None:
    """Name of the class another tool derived from ours since (FSDP2, parametrize), or ``None``."""
    is_ours = isinstance(module, Swapped) and "_swap_recipe" not in type(module).__dict__
    return type(module).__name__ if is_ours else None


def recipe_of(module: nn.Module) -> tuple[type, tuple[type[Swapped], ...]]:
    """The module's own class and the plug-ins in front of it, outermost first."""
    return type(module).__dict__.get("_swap_recipe", (type(module), ()))


def _compose(base: type, plugins: tuple[type[Swapped], ...]) -> type:
    if not plugins:
        return base
    with _lock:
        known = _classes.get((base, plugins))
    if known is not None:
        return known
    below = _compose(base, plugins[1:])
    plugin = plugins[0]
    names = {each: getattr(base, each) for each in ("__module__", "__qualname__", "__doc__")}
    namespace = {**plugin.namespace(below), **names, "_swap_recipe": (base, plugins)}
    composed: type = type(below)(base.__name__, (plugin, below), namespace)
    with _lock:
        return _classes.setdefault((base, plugins), composed)


def _rebuild(base: type[_Module], plugins: tuple[type[Swapped], ...]) -> _Module:
    composed = _compose(base, plugins)
    return composed.__new__(composed)  # type: ignore[call-overload]
