"""Run a model, plain or wrapped, and know at any time which block of its stack runs, in which cycle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cycledistill.cycle.exits import at_exit
from cycledistill.plugin.install import handle_of
from cycledistill.plugin.torch_private import tree_leaves
from cycledistill.stack.choose import choose_stack
from cycledistill.stack.given import Inputs, call_of


@dataclass
class RunningBlock:
    """Which block runs now, and the shape of the first tensor that entered it."""

    cycle: int = 0
    layer: int | None = None
    """Its number in the stack, from 0; ``None`` outside the stack."""
    shape: torch.Size = field(default_factory=torch.Size)


@contextmanager
def track_blocks(
    model: nn.Module, cycles: int | None, blocks: str, inputs: Inputs
) -> Iterator[tuple[list[nn.Module], RunningBlock]]:
    """The blocks in eval mode at the exit asked for, and which of them runs at any time.

    ``inputs`` are those that the model is to be run on; they tell which blocks run.
    """
    if cycles is not None and (isinstance(cycles, bool) or not isinstance(cycles, int) or cycles < 1):
        raise ValueError(f"cycles={cycles!r}: a whole number of at least 1, or None for those trained, is expected")
    given = next((x for x in tree_leaves(call_of(inputs)) if isinstance(x, Tensor)), None)
    if given is not None and not given.numel():
        raise ValueError(f"inputs of shape {tuple(given.shape)} hold no samples: there is nothing to look at")
    handle = handle_of(model, "cyclic")
    stack = handle.stack if handle is not None else choose_stack(model, blocks, inputs=inputs)
    cycles = cycles or (handle.cycles if handle is not None else 1)
    if handle is None and cycles > 1:
        raise ValueError(
            f"cycles={cycles}: {type(model).__name__} is not wrapped, so it has one; wrap_cyclic(model) first"
        )
    modules, running = stack.modules(model), RunningBlock()
    with ExitStack() as undo:
        undo.callback(model.train, model.training)
        model.eval()
        undo.enter_context(at_exit(model, cycles))
        for index, module in enumerate(modules):

            def enter(_: nn.Module, args: Any, kwargs: Any, index: int = index) -> None:
                running.cycle, running.layer = running.cycle + (index == 0), index
                entered = (x.shape for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor))
                running.shape = next(entered, running.shape)

            def leave(_: nn.Module, __: Any, ___: Any) -> None:
                running.layer = None

            undo.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            undo.callback(module.register_forward_hook(leave).remove)
        yield modules, running


def run(model: nn.Module, inputs: Inputs) -> Any:
    """What the model returns, without gradients; refuses inputs that it does not take."""
    args, kwargs = call_of(inputs)
    try:
        with torch.no_grad():
            return model(*args, **kwargs)
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        shapes = [tuple(x.shape) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        raise ValueError(f"{type(model).__name__} does not take inputs of shape {shapes}: {error}") from error
