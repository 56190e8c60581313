"""Copies of a model to try something out on: they carry no hook, and what runs on them is not noticed outside.

A hook belongs to a program around the model, which must not find in its records what a trial made; and some hooks
change what a trial looks at, as a full backward hook, which hands a block other tensors than its neighbour made.
"""

from __future__ import annotations

import copy
import functools
import logging
import random
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from cycledistill.plugin.swap import bare
from cycledistill.plugin.torch_private import (
    clear_hooks,
    hook_tables,
    saving_hooks,
    tree_leaves,
    without_global_hooks,
)

_logger = logging.getLogger(__name__)

_Module = TypeVar("_Module", bound=nn.Module)

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
"""Attributes in which PyTorch keeps parts, parameters, buffers and hooks: dozens of empty tables a module."""


def plain_copy(module: _Module, memo: dict[int, Any] | None = None) -> _Module:
    """A deep copy without hooks; what they belong to is not copied either.

    Args:
        module: What is copied.
        memo: What stands in the copy for objects of the original, by their ``id``, as `copy.deepcopy` takes it.

    Raises:
        RuntimeError: The copy would run modules of the original, by a forward that was replaced on an object.
    """
    memo = {} if memo is None else memo
    modules = set(module.modules())
    for each in modules:
        memo.update((id(table), type(table)()) for table in hook_tables(each))
        if _runs_one_of(modules, vars(each).get("forward")):
            raise RuntimeError(
                f"the forward of a {type(each).__name__} was replaced on the object by a function that runs modules of "
                "this model, so a copy would run them too"
            )
    copied = copy.deepcopy(module, memo)
    for each in copied.modules():
        clear_hooks(each)  # classes may copy themselves, and hooks with them
        # Hooks that a model puts on by itself are part of how it computes (outputs of layers in transformers): it notes
        # that they are there, and puts them on the copy anew where it finds no such note.
        notes = [name for name, value in vars(each).items() if value is True and name.endswith("_hooks_installed")]
        vars(each).update(dict.fromkeys(notes, False))
    return copied


def meta_copy(model: _Module) -> _Module:
    """A `plain_copy` whose parameters and buffers are on the meta device; nothing of their data is copied."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        with torch.no_grad():
            empty = tensor.detach().to("meta")
        if isinstance(tensor, nn.Parameter):
            empty = nn.Parameter(empty, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = empty
    for module in model.modules():
        # A cache of computed tensors (LevIT's attention biases) would refuse to be copied.
        for leaf in tree_leaves([each for name, each in vars(module).items() if name not in _OF_EVERY_MODULE]):
            if isinstance(leaf, torch.Tensor) and not leaf.is_leaf:
                memo[id(leaf)] = leaf.detach().to("meta")
    return plain_copy(model, memo)


def bare_copy(model: _Module) -> _Module | None:
    """A `meta_copy` without plug-ins, which may change what blocks do; ``None`` where the model cannot be copied."""
    try:
        return bare(meta_copy(model))
    except Exception as error:  # whatever a model's own __deepcopy__ raises
        _logger.debug("no meta copy of %s: %s", type(model).__name__, error)
        return None


@contextmanager
def unnoticed() -> Iterator[None]:
    """What runs in the context is not noticed outside it: by hooks on all modules or on saved tensors, by random draws.

    Hooks on all modules are those of ``torch.nn.modules.module``; another thread's forwards go without them too. Random
    states are those of the CPU: trials run there or on the meta device.

    Example:
        >>> with unnoticed():
        ...     plain_copy(model)(images)
    """
    with ExitStack() as undo:
        undo.enter_context(without_global_hooks())
        undo.enter_context(torch.random.fork_rng(devices=[]))
        undo.callback(random.setstate, random.getstate())
        if "numpy" in sys.modules:
            numpy = sys.modules["numpy"].random
            undo.callback(numpy.set_state, numpy.get_state())
        if saving_hooks() is not None:  # the innermost pair alone is called
            undo.enter_context(torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x))
        yield


def _runs_one_of(modules: set[nn.Module], forward: Callable[..., Any] | None) -> bool:
    """Whether a function, which no copy copies, holds one of these modules, or a method of one, however deep."""
    while isinstance(forward, functools.partial):  # copied with what it was given, but not the function in it
        forward = forward.func
    waiting: list[Any] = [forward]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, functools.partial):
            waiting += [one.func, *one.args, *one.keywords.values()]
        elif isinstance(one, types.FunctionType):
            waiting += [cell.cell_contents for cell in one.__closure__ or () if not _is_empty(cell)]
            waiting += [*(one.__defaults__ or ()), *(one.__kwdefaults__ or {}).values()]
        elif one is not forward:
            owner = getattr(one, "__self__", one)
            if isinstance(owner, nn.Module) and owner in modules:
                return True
    return False


def _is_empty(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 (asked for alone)
    except ValueError:
        return True
    return False
