"""Which blocks of a model can be cycled where a plug-in drops frames between them; the plug-in itself says which."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from cycledistill.errors import StackError
from cycledistill.plugin.handle import handle_of
from cycledistill.stack.find import Stack


class Segmented(Protocol):
    """A handle that knows the segments of its stack: the runs of blocks with one number of frames."""

    def segments(self, model: nn.Module) -> list[str]:
        """Their paths, in order."""

    def check_cycled(self, model: nn.Module, cycled: Stack) -> None:
        """Refuse to cycle blocks between which the number of frames changes, and name those that can be cycled."""

    def chooses_behind(self, model: nn.Module, cycled: Stack) -> bool:
        """Whether frames are chosen behind the cycled blocks."""


def blocks_to_cycle(model: nn.Module, blocks: str) -> str:
    """What ``blocks`` means: on an hourglass, ``"auto"`` is the blocks after its last prune point."""
    segmented = _segmented(model)
    if segmented is None or blocks != "auto":
        _refuse_inner(model)
        return blocks
    return segmented.segments(model)[-1]


def check_cycled(model: nn.Module, stack: Stack) -> None:
    """Refuse to cycle blocks between which the number of frames changes, and name those that can be cycled."""
    segmented = _segmented(model)
    if segmented is not None:
        segmented.check_cycled(model, stack)


def chosen_behind(model: nn.Module, stack: Stack) -> bool:
    """Whether frames are chosen behind the cycled blocks, so that all cycles need what the first one hands on."""
    segmented = _segmented(model)
    return segmented is not None and segmented.chooses_behind(model, stack)


def _segmented(model: nn.Module) -> Segmented | None:
    handle: Segmented | None = handle_of(model, "hourglass")
    return handle


def _refuse_inner(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if name and _segmented(module) is not None:
            raise StackError(
                f"{name} is an hourglass, whose frames are chosen once in its own forward: call wrap_cyclic on it, "
                f"wrap_cyclic(model.{name})"
            )
