"""What is checked while a wrapped model runs, and why: a model that cannot be cycled is refused, never run wrongly.

Cycles run blocks outside the model's forward, on arguments recorded once. That equals the model's own forward unrolled
only where the forward between the blocks does nothing but hand tokens on. Much of that shows when a model is wrapped;
what a forward does on its way shows when it runs, and is checked here. Behind each check stands a real kind of model;
``tests/cycle/test_between_blocks.py`` and ``tests/cycle/test_refusals.py`` hold a small one for each.

What compares values waits for the GPU, so `Comparisons` picks the forwards that do; what hides in an object among the
arguments is looked at in every eager forward, for a cache may come with a later call alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import torch
from torch import nn

from cycledistill.cycle.call import EarlyCall, RecordedCall
from cycledistill.cycle.snapshot import ObjectSnapshot, Snapshot, objects_with_hidden_tensors, same_value
from cycledistill.errors import StackError
from cycledistill.plugin.running import is_eager
from cycledistill.plugin.torch_private import is_transformed, tree_flatten, tree_leaves_with_path
from cycledistill.stack.find import Stack
from cycledistill.stack.links import second_run

_PART = (
    "A later exit runs the whole stack again: let it run all of the blocks (stop_early=False, where it has such an "
    "argument), or call it at exit 1: with at_exit(model, 1)"
)


class Comparisons:
    """Picks the forwards that compare the blocks' arguments between cycles: the 1st, 2nd, 4th, 8th, ... in each mode.

    Not the first alone: blocks that begin as the identity let arguments that hang on tokens look constant.
    """

    def __init__(self) -> None:
        self._forwards = {True: 0, False: 0}

    def due(self, training: bool) -> bool:
        """Count a forward that is about to run, and tell whether it compares; compiled ones neither count nor do."""
        if not is_eager():
            return False
        self._forwards[training] += 1
        count = self._forwards[training]
        return count & (count - 1) == 0


def check_trainable(stack: Stack, model: nn.Module) -> None:
    """Refuse a stack whose parameters are all frozen; inside a transform of torch.func that cannot be told."""
    blocks = stack.modules(model)
    parameters = [parameter for block in blocks for parameter in block.parameters()]
    if parameters and not any(parameter.requires_grad for parameter in parameters) and not is_transformed():
        others = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        some = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        what = f"What does is outside: {some}; one cycle trains it: cycles=1. " if others else ""
        raise StackError(
            f'blocks="{stack.path}": no parameter of the stack requires gradients, so cycles would train nothing in '
            f"it. {what}For more cycles something in the blocks must learn: all of them (requires_grad_(True)), or "
            "their norms, or adapters; freeze them only after training"
        )


def check_order(path: str, index: int, due: int, method: str = "") -> None:
    """Refuse a forward that enters another block than the one that is due: cycles run each block once, in order.

    ``method`` here and below: the name of the method that was called, where it is not the forward of the wrapped model
    itself, and may run some of the blocks.
    """
    if index != due and method:
        raise StackError(f'blocks="{path}": {method} entered block {index} where block {due} was due. {_PART}')
    if index != due:
        raise StackError(
            f'blocks="{path}": block {index} was entered where block {due} was due. Every block must '
            "run exactly once, in order: switch off layers that are skipped at random (LayerDrop), and do not "
            "cycle blocks that are shared. If the model was edited after wrapping, call unwrap_cyclic(model) and "
            "wrap it again"
        )


def check_second_run(path: str, below: Sequence[str]) -> None:
    """Refuse a forward that runs the stack a second time.

    ``below`` are the ways to the stack from the modules that were called on the way, one for each call.
    """
    container = path.split("[")[0]
    again = [container[: -len(each) - 1] for each in below if each and each != container and below.count(each) > 1]
    raise second_run(path, min(again, key=len, default=""))


def check_all_ran(path: str, depth: int, entered: int, method: str) -> None:
    """Refuse a first pass that left blocks out."""
    if entered != depth and method:
        raise StackError(f'blocks="{path}": {method} stopped after {entered} of {depth} blocks. {_PART}')
    if entered != depth:
        raise StackError(
            f'blocks="{path}": the forward entered {entered} of {depth} blocks; the model was '
            "edited after wrapping, or skips blocks. Call unwrap_cyclic(model) and wrap it again as it is now"
        )


def check_all_answered(path: str, depth: int, answered: int) -> None:
    """Refuse a replay that left blocks out."""
    if answered != depth:
        raise StackError(
            f'blocks="{path}": the replayed forward entered {answered} of {depth} blocks; the model '
            "skips blocks at random. Switch that off, or use the model's own stochastic depth inside the blocks"
        )


def check_checkpointing(path: str, index: int) -> None:
    """Refuse reentrant checkpointing around a block, which runs without gradients in a forward that has them."""
    if _inside_autograd_function():
        raise StackError(
            f'blocks="{path}": block {index} runs without gradients inside a forward that has them, as in '
            "reentrant activation checkpointing, which would give wrong gradients silently. Use non-reentrant "
            "checkpointing: torch.utils.checkpoint.checkpoint(..., use_reentrant=False), or for timm "
            "timm.layers.set_reentrant_ckpt(False)"
        )


def _inside_autograd_function() -> bool:
    """Whether the caller's frames hold the forward of a `torch.autograd.Function`, as reentrant checkpointing is."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if isinstance(frame.f_locals.get("ctx"), torch.autograd.function.FunctionCtx):
            return True
        frame = frame.f_back
    return False


def check_gradients(path: str, depth: int, frozen: Sequence[int]) -> None:
    """Refuse a forward that runs some blocks without gradients, and others with: cycles would train through all.

    ``frozen`` are the numbers of the blocks that ran without; where these are the first ones, the rest can be cycled.
    """
    if not frozen:
        return
    what = f"blocks {', '.join(map(str, frozen))} run without gradients (torch.no_grad) inside a forward that has them"
    first = len(frozen)
    if first == depth or list(frozen) != list(range(first)):
        raise StackError(
            f'blocks="{path}": {what}, and cycles would not train through them either. Take the no_grad away, or cycle '
            "blocks that all run with gradients"
        )
    container, _, span = path.partition("[")
    start = int(span.partition(":")[0] or 0) if span else 0
    raise StackError(
        f'blocks="{path}": {what}, and cycles train what they run. Cycle the others: unwrap_cyclic(model), then '
        f'wrap_cyclic(model, blocks="{container}[{start + first}:{start + depth}]")'
    )


def check_before_stack(inputs: Snapshot, early: Sequence[EarlyCall]) -> None:
    """Refuse a forward that changed in place what a replay starts from."""
    what = "its own input" if inputs.changed() else "the output of a module before the stack"
    if inputs.changed() or any(call.output.changed() for call in early):
        raise StackError(
            f"the model's forward changes {what} in place (x += ...), and would do so again for every cycle. Write "
            "it out of place: x = x + ..."
        )


def check_state(path: str, depth: int, outputs: Sequence[Snapshot]) -> None:
    """Refuse a forward that changed in place the tokens a block, the next cycle or the token loss starts from."""
    if outputs[-1].changed():
        last = len(outputs) - 1
        where = "the stack's output" if last == depth - 1 else f"the output of block {last}"
        raise StackError(
            f'blocks="{path}": the model changes {where} in place, so cycles would start from something else. '
            "Write it out of place: x = x + ..., F.relu(x)"
        )


def check_unchanged_arguments(path: str, calls: Sequence[RecordedCall]) -> None:
    """Refuse a forward that changed in place, after a block's call, what the block takes beside its tokens."""
    for index, call in enumerate(calls):
        state = call.state_leaves()
        if any(leaf not in state for leaf in call.given.changed()):
            raise StackError(
                f'blocks="{path}": something that block {index} takes beside its tokens was changed in place '
                "after the block was called. Write that out of place: x = x + ..."
            )


def check_skips(path: str, index: int, call: RecordedCall, earlier: Sequence[RecordedCall]) -> None:
    """Refuse a second state that the forward hands on and no block returns.

    An output of a block further back may stand where earlier blocks were given nothing, as in a U-Net; where they were
    given a tensor, it is such a state.
    """
    if not call.skips:
        return
    paths = [key for key, _ in tree_leaves_with_path(call.given.value())]
    skipped = {paths[taken] for _, _, taken in call.skips}
    for each in earlier:
        known = each.state_leaves()
        for number, (key, leaf) in enumerate(tree_leaves_with_path(each.given.value())):
            if key in skipped and isinstance(leaf, torch.Tensor) and number not in known:
                raise StackError(
                    f'blocks="{path}": block {index} takes the output of a block further back where earlier '
                    "blocks take another tensor: the forward hands on a state that blocks do not return, and "
                    "further cycles would begin with the first one. Return it from the blocks"
                )


def check_returned(path: str, index: int, changed: Any, output: Any) -> None:
    """Refuse a block that changed a list or a dict and does not return it; as a state that is a dict, it may."""
    if output is not changed:
        raise StackError(
            f'blocks="{path}": block {index} changes a {type(changed).__name__} that it is given and '
            "does not return, so what later cycles put there would be lost. Return it, or collect outside the "
            "blocks"
        )


def check_objects(path: str, index: int, objects: Sequence[ObjectSnapshot]) -> None:
    """Refuse a block that changed an object among its arguments: cycle 2 would find there what cycle 1 left."""
    for each in objects:
        if each.changed():
            raise StackError(
                f'blocks="{path}": block {index} changes the {type(each.owner).__name__} it is given, as a '
                "cache of keys and values is, and later cycles would find there what this one left. Switch it off: "
                "model.config.use_cache = False, or use_cache=False in the call"
            )


def check_same_arguments(
    path: str, index: int, call: RecordedCall, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Refuse a replayed forward that gives a block other arguments, beside its tokens, than were recorded.

    They are computed from tokens, or drawn at random. Where autograd can tell, ``check_arguments`` in
    `cycledistill.stack.links` says so in the first pass already.
    """
    leaves, spec = tree_flatten((args, kwargs))
    state = call.state_leaves()
    objects = objects_with_hidden_tensors(leaves)
    if (
        spec != call.given.spec
        or not all(i in state or same_value(*both) for i, both in enumerate(zip(call.leaves, leaves, strict=True)))
        or len(objects) != len(call.objects)
        or not all(recorded.like(each) for recorded, each in zip(call.objects, objects, strict=True))
    ):
        raise StackError(
            f'blocks="{path}": block {index} takes something beside its tokens that changes when they do '
            "(it is computed from earlier blocks), or that is drawn at random in the model's own forward. Cycles "
            "run the blocks alone and would keep what cycle 1 had. Compute it inside the block"
        )


def check_same_way(known: EarlyCall | None, key: int) -> EarlyCall:
    """Refuse a replayed forward that calls another module before the stack than the first pass did at this point."""
    if known is None or known.key != key:
        raise StackError(
            "the model's forward took another way before the stack when it was replayed than the first time: "
            "its control flow depends on something that changed (a random choice, a counter). Make that choice "
            "inside a module, or outside the model"
        )
    return known
