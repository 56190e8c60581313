"""Sees, while a step runs eagerly, what would be wrong or forbidden in a graph of it, and where that is done."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cycledistill.plugin.torch_private import TorchDispatchMode, tree_leaves
from cycledistill.recipes.errors import NotCapturableError
from cycledistill.recipes.run.seeding import generator_states

_TORCH = Path(torch.__file__).parent
_READ_BACK = {
    f"aten::{name}"
    for name in (
        "_local_scalar_dense bincount equal is_nonzero item masked_select nonzero repeat_interleave.Tensor "
        "_unique _unique2 unique_consecutive unique_dim"
    ).split()
}
"""Operators whose result, or its shape, the CPU has to know."""


@contextmanager
def watched(device: torch.device) -> Iterator[None]:
    """Run a step, and refuse what a graph of it could not hold.

    Raises:
        NotCapturableError: Values are read back from ``device``, tensors are made there from Python's numbers, or
            random numbers are drawn elsewhere than there.
    """
    before = generator_states()
    with _Watch(device):
        yield
    for whose, state in generator_states().items():
        if state != before[whose] and (whose, device.type) != ("torch", "cpu"):
            raise NotCapturableError(
                f"the step draws random numbers from {whose}'s generator on the CPU, and a graph would keep them"
            )


class _Watch(TorchDispatchMode):
    """Looks at every operator of the forward and the backward."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        reason = self._reason(func.name(), args, kwargs)
        if reason:
            raise NotCapturableError(f"{reason} ({func.name()}{_place()})")
        return func(*args, **kwargs)

    def _reason(self, name: str, args: Any, kwargs: Any) -> str:
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        here = [each for each in tensors if each.device.type == self.device.type]
        if name == "aten::lift_fresh" and here and tensors[0].ndim:
            return "the step makes a tensor on the device from Python's numbers"
        if not here:
            return ""
        if name in _READ_BACK or (name == "aten::index.Tensor" and _by_mask(args[1])):
            return "the step reads values back from the device"
        kind = kwargs.get("device")
        to = torch.device(kind) if name == "aten::_to_copy" and kind is not None else self.device
        if to.type != self.device.type or (name == "aten::copy_" and tensors[0].device.type != self.device.type):
            return "the step copies values from the device"
        return ""


def _by_mask(indices: Any) -> bool:
    """Whether how many are chosen depends on values."""
    return any(isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8) for each in indices)


def _place() -> str:
    """The innermost line outside PyTorch and this file; in a backward, the one that started it."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path != Path(__file__) and not path.is_relative_to(_TORCH):
            return f", {'/'.join(path.parts[-2:])}, line {frame.lineno}"
    return ""
