"""Copies of a model that share its tensors, and hooks set aside."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import nn

from cycledistill.plugin.handle import KINDS, handle_of
from cycledistill.plugin.torch_private import hook_tables
from cycledistill.verification.oracle.plain import plain
from cycledistill.verification.table import NotChecked

Model = TypeVar("Model", bound=nn.Module)


def shared_copy(model: Model) -> Model:
    """A copy without plug-ins that has the very parameters and buffers of ``model``.

    Raises:
        NotChecked: The model cannot be copied.
    """
    memo: dict[int, Any] = {id(each): each for each in (*model.parameters(), *model.buffers())}
    try:
        with plain(model):
            copied = copy.deepcopy(model, memo)
    except Exception as error:  # whatever a model's own __deepcopy__ raises
        raise NotChecked(f"the model cannot be copied: {type(error).__name__}: {error}", optional=True) from error
    for module in copied.modules():
        for name, kind in KINDS.items():
            if handle_of(module, name) is not None:
                del vars(module)[name]
            vars(module).pop(kind.state, None)
    return copied


@contextmanager
def without_hooks(model: nn.Module) -> Iterator[None]:
    """Inside the context no hook is on any module of ``model``."""
    held = [(hooks, dict(hooks)) for module in model.modules() for hooks in hook_tables(module)]
    for hooks, _ in held:
        hooks.clear()
    try:
        yield
    finally:
        for hooks, own in held:
            hooks.clear()
            hooks.update(own)
