"""A module that a plug-in acts in, found again after another tool put something around it or in its place.

Adapters and quantisation replace a child of a module: around the one that was given a class there is another now
(LoRA), a copy of it runs (what PEFT calls modules to save), or something else stands there. A plug-in that acts in
children looks at what stands there when it runs, and moves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cycledistill.errors import StackError
from cycledistill.plugin.swap import Swapped, swap, swapped_since, unswap


def submodule(module: nn.Module, path: str) -> nn.Module | None:
    """What stands at ``path`` in ``module``, also behind a wrapper that hands on attributes; ``None`` for nothing."""
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def acts_in(module: nn.Module, behaviour: type[Swapped], key: str, state: Any) -> bool:
    """Whether a plug-in acts in this very module, by this state."""
    return vars(module).get(key) is state and isinstance(module, behaviour)


def act_in(module: nn.Module, behaviour: type[Swapped], key: str, state: Any) -> None:
    """Let a plug-in act in ``module``, and no longer in what it holds, the module that stood there before, say.

    That one keeps the state, so that it is known if the other tool puts it back.

    Raises:
        StackError: Python cannot change the class of ``module``.
    """
    for inner in module.modules():
        if inner is not module and isinstance(inner, behaviour):
            take_off(inner, (behaviour,), key)
            if not isinstance(inner, behaviour):
                vars(inner)[key] = state
    if not isinstance(module, behaviour):
        try:
            swap(module, behaviour)
        except TypeError as error:
            raise StackError(
                f"a {type(module).__name__} stands where a plug-in acts, and Python cannot change its class: {error}. "
                "Put it there before the model is wrapped, or put a plain Python module in its place"
            ) from error
    vars(module)[key] = state


def refuse_compiled(place: str) -> None:
    """Refuse to move in a forward that is compiled, which cannot follow that; ``place`` is where it is to move."""
    if torch.compiler.is_compiling():
        raise StackError(
            f"{place} was replaced by another tool since the last forward (an adapter came or went, say): run the "
            "model once as it is, under torch.no_grad() say, and then compiled"
        )


def take_off(module: nn.Module, behaviours: tuple[type[Swapped], ...], key: str) -> None:
    """Take a plug-in off one module; where another tool derived a class since, that class stays, and does nothing."""
    for each in behaviours:
        if isinstance(module, each) and swapped_since(module) is None:
            unswap(module, each)
    vars(module).pop(key, None)
