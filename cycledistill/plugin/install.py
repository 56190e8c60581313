"""How every plug-in comes onto a model and off again: what is refused, classes swapped all or none, and put back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cycledistill.errors import StackError
from cycledistill.plugin.handle import Handle, handle_of
from cycledistill.plugin.parts import take_off
from cycledistill.plugin.swap import Swapped, swap, swapped_since
from cycledistill.plugin.torch_private import is_compiled, is_replica

__all__ = [
    "ON_THE_FULL_GRID",
    "Plugin",
    "Role",
    "check_module",
    "handle_of",
    "install",
    "refuse",
    "refuse_replica",
    "remove",
]

ON_THE_FULL_GRID = ("forward_intermediates", "get_intermediate_layers")
"""Methods of timm models that make maps of all patches."""

_DATA_PARALLEL = {"DistributedDataParallel", "DataParallel", "FullyShardedDataParallel"}

Role = tuple[nn.Module, type[Swapped], Any]
"""A module of the model, the class it is given, and the state that it will find under the plug-in's key."""


@dataclass(frozen=True)
class Plugin:
    """What one pair of verbs puts on a model and takes off.

    Attributes:
        kind: Name of the handle, and of the verbs: ``"cyclic"`` for ``model.cyclic``, ``wrap_cyclic``,
            ``unwrap_cyclic``.
        key: Where in a module's ``__dict__`` its state stands.
        classes: The classes that modules are given.
        change: What can be set on a wrapped model in place of wrapping it again, if anything can.
    """

    kind: str
    key: str
    classes: tuple[type[Swapped], ...]
    change: str = ""

    @property
    def verb(self) -> str:
        """The function that wraps."""
        return f"wrap_{self.kind}"

    @property
    def undo(self) -> str:
        """The function that unwraps."""
        return f"unwrap_{self.kind}"

    def is_on(self, module: nn.Module) -> bool:
        """Whether a module has one of the classes, also when another tool derived a class since."""
        return isinstance(module, self.classes)


def refuse(model: nn.Module, plugin: Plugin, scripted_parts: bool = False) -> None:
    """Refuse a model that the plug-in could not act in, whatever the other arguments.

    With ``scripted_parts`` a module inside may be scripted or traced: the plug-in leaves that one alone.
    """
    verb, undo = plugin.verb, plugin.undo
    check_module(model, verb)
    name = type(model).__name__
    if handle_of(model, plugin.kind) is not None:
        change = f"set {plugin.change}, or " if plugin.change else ""
        raise StackError(f"this {name} is already wrapped by {verb}: {change}call {undo}(model) first")
    if any(plugin.is_on(module) for module in model.modules()):
        raise StackError(
            f"something in this {name} is already wrapped by {verb}, or was taken from a wrapped model: call {undo} on "
            "it first"
        )
    scripted = [model] if scripted_parts else list(model.modules())
    if any(isinstance(module, torch.jit.ScriptModule) for module in scripted):
        raise StackError(f"this {name} is scripted or traced, or holds such a module: wrap the Python model behind it")
    if any(is_compiled(module) for module in model.modules()):
        raise StackError(
            f"this {name} is compiled, or holds a compiled module: wrap the plain model, then compile it: "
            f"torch.compile({verb}(model))"
        )
    if "forward" in vars(model):
        raise StackError(
            f"the forward of this {name} was replaced on the object (by accelerator.prepare, for example), so what "
            f"{verb} adds would not run: wrap the model first, then prepare or patch it"
        )
    if _is_data_parallel(model):
        raise StackError(f"this is a {name}: wrap the model inside, {verb}(model.module), before or after")
    if plugin.kind in dir(model) or hasattr(model, plugin.kind):  # a property may raise when it is read
        raise StackError(
            f"this {name} has an attribute of its own called {plugin.kind!r}, the handle's name: rename it"
        )


def check_module(model: Any, function: str) -> None:
    """Refuse what is no module, in the name of the public function that was given it."""
    if not isinstance(model, nn.Module):
        raise StackError(f"{function} takes a torch.nn.Module, and was given a {type(model).__name__}")


def refuse_replica(module: Any, kind: str) -> None:
    """Refuse a module that runs as a replica of ``torch.nn.DataParallel``."""
    if is_replica(module):
        raise StackError(
            "torch.nn.DataParallel runs replicas in threads that share one record of the forward: use "
            f"torch.nn.parallel.DistributedDataParallel, or unwrap_{kind}(model)"
        )


def install(model: nn.Module, plugin: Plugin, handle: Handle, roles: Iterable[Role]) -> None:
    """Give modules their classes and states, and the model its handle: all, or nothing.

    Raises:
        StackError: Python cannot change the class of one of the modules. The model is then as it was, as after any
            other error, of a model's own ``__setattr__`` or of a class that registers its subclasses, say.
    """
    done: list[nn.Module] = []
    all_roles = list(roles)  # before anything is changed: finding them may fail too
    try:
        for module, behaviour, state in all_roles:
            _change_class(module, behaviour, model, plugin)
            done.append(module)
            setattr(module, plugin.key, state)
        setattr(model, plugin.kind, handle)
    except BaseException:
        for each in done:
            take_off(each, plugin.classes, plugin.key)
        raise


def _change_class(module: nn.Module, behaviour: type[Swapped], model: nn.Module, plugin: Plugin) -> None:
    try:
        swap(module, behaviour)
    except TypeError as error:
        raise StackError(
            f"Python cannot change the class of a {type(module).__name__} in this {type(model).__name__}, as "
            f"{plugin.verb} would: {error}. Put a plain Python module in its place"
        ) from error


def remove(model: nn.Module, plugin: Plugin) -> Any:
    """Give modules their own classes again, take the handle off, and return it.

    A part that was taken from a wrapped model, a copy of its encoder say, has no handle: the result is then ``None``.

    Raises:
        StackError: The model is not wrapped, or another tool swapped a class since. The model is then as it was.
    """
    check_module(model, plugin.undo)
    handle = None if is_compiled(model) else handle_of(model, plugin.kind)
    swapped = [(name, module) for name, module in model.named_modules() if plugin.is_on(module)]
    if handle is not None:
        # A swapped module that no handle owns was copied on its own (by PEFT, say), or it is a slice of a swapped
        # Sequential that took its place.
        handles = {id(each): each for each in (handle_of(module, plugin.kind) for module in model.modules()) if each}
        others = [each for each in handles.values() if each is not handle]
        states = [vars(module).get(plugin.key) for _, module in swapped]
        swapped = [
            each for each, state in zip(swapped, states, strict=True) if not any(other.owns(state) for other in others)
        ]
    elif not swapped or any(handle_of(module, plugin.kind) is not None for module in model.modules()):
        raise StackError(
            f"{type(model).__name__} is not wrapped by {plugin.verb}, so there is nothing to undo{_inside(model)}"
        )
    for name, module in swapped:
        other = swapped_since(module)
        if other is not None:
            raise StackError(
                f"{name or 'the model'} became a {other} after wrapping: another tool swapped its class. Undo that "
                f"first, then call {plugin.undo}(model)"
            )
    for _, module in swapped:
        take_off(module, plugin.classes, plugin.key)
    for module in model.modules():
        if not plugin.is_on(module):
            vars(module).pop(plugin.key, None)  # of one that another tool put another around
    if handle is not None:
        delattr(model, plugin.kind)
    return handle


def _is_data_parallel(model: nn.Module) -> bool:
    return any(each.__name__ in _DATA_PARALLEL for each in type(model).__mro__)


def _inside(model: nn.Module) -> str:
    if is_compiled(model):
        return " (unwrap the model that was compiled)"
    return " (unwrap its .module)" if _is_data_parallel(model) else ""
