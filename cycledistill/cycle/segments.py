"""Which blocks of an hourglass can be cycled: those before or after a prune point, never across it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import nn

from cycledistill.errors import StackError
from cycledistill.plugin.handle import handle_of
from cycledistill.stack.find import Stack


def blocks_to_cycle(model: nn.Module, blocks: str) -> str:
    """What ``blocks`` means: on an hourglass, ``"auto"`` is the blocks after its last prune point."""
    handle = handle_of(model, "hourglass")
    if handle is None or blocks != "auto":
        _refuse_inner(model)
        return blocks
    return _segments(model, handle)[-1]


def check_cycled(model: nn.Module, stack: Stack) -> None:
    """Refuse to cycle blocks between which the number of frames changes, and name those that can be cycled."""
    handle = handle_of(model, "hourglass")
    if handle is None:
        return
    blocks, cycled = handle.stack.modules(model), stack.modules(model)
    drops = [blocks[number] for number in handle.layers]
    last = blocks[handle.end]
    changes = any(drop is each for drop in drops for each in cycled[1:]) or any(last is each for each in cycled[:-1])
    back = model.get_submodule(handle.recover_after) if handle.recover_after else None
    for block in cycled:
        inside = {id(each) for each in block.modules()} - {id(block)}
        changes |= any(id(drop) in inside for drop in drops) and id(back) not in inside
    if changes:
        kept = " and ".join(
            f"{keep} frames before block {n}" for n, keep in zip(handle.layers, handle.keep, strict=True)
        )
        segments = [f'blocks="{each}"' for each in _segments(model, handle)]
        raise StackError(
            f'blocks="{stack.path}": the hourglass keeps {kept}, so these blocks do not return the frames they take '
            f"and cannot run on their own output. Cycle {' or '.join(segments)} (the last is the default)"
        )


def chosen_behind(model: nn.Module, stack: Stack) -> bool:
    """Whether frames are chosen behind the cycled blocks, so that all cycles need what the first one hands on."""
    handle = handle_of(model, "hourglass")
    if handle is None:
        return False
    cycled = {id(each) for block in stack.modules(model) for each in block.modules()}
    blocks = handle.stack.modules(model)
    after = max((number for number, block in enumerate(blocks) if id(block) in cycled), default=-1)
    return any(number > after for number in handle.layers)


def _segments(model: nn.Module, handle: Any) -> list[str]:
    """Paths of the runs of blocks with one number of frames."""
    span, _ = handle.stack.span(model)
    if span is None:
        return [handle.stack.path]
    container, start = handle.stack.path.split("[")[0], span[0]
    bounds = [0, *(number for number in handle.layers if number), handle.end + 1]
    return [f"{container}[{start + a}:{start + b}]" for a, b in pairwise(bounds)]


def _refuse_inner(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if name and handle_of(module, "hourglass") is not None:
            raise StackError(
                f"{name} is an hourglass, whose frames are chosen once in its own forward: call wrap_cyclic on it, "
                f"wrap_cyclic(model.{name})"
            )
