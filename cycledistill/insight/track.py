"""Run a model, plain or wrapped, and know at any time which block of its stack runs, in which cycle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cycledistill.plugin.torch_private import tree_leaves
from cycledistill.stack.find import choose_stack

Inputs = Tensor | tuple[Any, ...] | Mapping[str, Any]
"""What a model is called with: a tensor, a tuple of arguments, or keyword arguments."""


@dataclass
class Place:
    """Which block runs now, and the shape of the first tensor that entered it."""

    cycle: int = 0
    layer: int | None = None
    state: torch.Size = field(default_factory=torch.Size)


@contextmanager
def track_blocks(model: nn.Module, cycles: int | None, blocks: str) -> Iterator[tuple[list[nn.Module], Place]]:
    """The blocks in eval mode at the exit asked for, and which of them runs at any time.

    Raises:
        ValueError: ``cycles`` is no whole number of at least 1, or more than 1 of a model that is not wrapped.
    """
    if cycles is not None and (isinstance(cycles, bool) or not isinstance(cycles, int) or cycles < 1):
        raise ValueError(f"cycles={cycles!r}: a whole number of at least 1, or None for those trained, is expected")
    handle: Any = vars(model).get("cyclic")
    stack = handle.stack if handle is not None else choose_stack(model, blocks)
    cycles = cycles or (handle.cycles if handle is not None else 1)
    if handle is None and cycles > 1:
        raise ValueError(
            f"cycles={cycles}: {type(model).__name__} is not wrapped, so it has one; wrap_cyclic(model) first"
        )
    modules, place = stack.modules(model), Place()
    mode, before = model.training, handle.exit if handle is not None else 1
    with ExitStack() as undo:
        undo.callback(model.train, mode)
        model.eval()
        if handle is not None:
            undo.callback(setattr, handle, "exit", before)
            handle.exit = cycles
        for index, module in enumerate(modules):

            def enter(_: nn.Module, args: Any, kwargs: Any, index: int = index) -> None:
                place.cycle, place.layer = place.cycle + (index == 0), index
                place.state = next((x.shape for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)), place.state)

            def leave(_: nn.Module, __: Any, ___: Any) -> None:
                place.layer = None

            undo.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            undo.callback(module.register_forward_hook(leave).remove)
        yield modules, place


def run(model: nn.Module, inputs: Inputs) -> Any:
    """What the model returns, without gradients.

    Raises:
        ValueError: The model does not take these inputs.
    """
    args = () if isinstance(inputs, Mapping) else inputs if isinstance(inputs, tuple) else (inputs,)
    kwargs = inputs if isinstance(inputs, Mapping) else {}
    try:
        with torch.no_grad():
            return model(*args, **kwargs)
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        shapes = [tuple(x.shape) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        raise ValueError(f"{type(model).__name__} does not take inputs of shape {shapes}: {error}") from error
