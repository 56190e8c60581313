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
_READ_BACK = set(
    "_local_scalar_dense allclose bincount embedding_renorm_ equal histc is_nonzero item masked_select nonzero "
    "repeat_interleave _unique _unique2 unique_consecutive unique_dim "
    # of linear algebra what looks for failure: the solvers do by the first one, the others inside
    "_linalg_check_errors linalg_eig _linalg_eigh _linalg_eigvals _linalg_svd linalg_lstsq linalg_matrix_exp "
    "linalg_pinv".split()
)
"""Operators whose result, its shape, or whether there is one, the CPU has to know."""
_TAKE = {"index", "_unsafe_index"}
_PUT = {"index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put"}
_COPY = {"copy_", "_to_copy"}


@contextmanager
def watched(device: torch.device) -> Iterator[None]:
    """Run a step, and refuse what a graph of it could not hold.

    Raises:
        NotCapturableError: Values are read back from ``device``, or brought there from the CPU's memory or from
            Python's numbers; or random numbers are drawn elsewhere than there.
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
        name = name.removeprefix("aten::").partition(".")[0]
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        here = [each for each in tensors if self._is_here(each.device)]
        away = [each for each in tensors if not self._is_here(each.device)]
        if name in _COPY:
            target = torch.device(kwargs.get("device") or tensors[0].device)
            if here and not self._is_here(target):
                return "the step copies values from the device"
            if away and self._is_here(target):
                return "the step copies values to the device"
        if not here:
            return ""
        if name == "lift_fresh" and (here[0].ndim or here[0].device.type != "cpu"):
            return "the step makes a tensor on the device from Python's numbers"
        if name in _READ_BACK or (name in _TAKE and _by_mask(args[1])) or (name in _PUT and not _fills(*args[1:])):
            return "the step reads values back from the device"
        if any(each.ndim for each in away):  # without dimensions: a number
            return "the step uses a tensor of the CPU beside those of the device"
        return ""

    def _is_here(self, device: torch.device) -> bool:
        return device.type == self.device.type


def _by_mask(indices: Any) -> bool:
    """Whether how many are chosen depends on values."""
    return any(isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8) for each in indices)


def _fills(indices: Any, values: Tensor, accumulate: bool = False, *unsafe: bool) -> bool:
    """Whether an assignment is by no mask, or of one number by a single one, which no value has to be counted for."""
    number = values.numel() == 1 and values.device.type == "cpu"  # elsewhere it is spread by the count, too
    return not _by_mask(indices) or (number and not accumulate and sum(each is not None for each in indices) == 1)


def _place() -> str:
    """The innermost line outside PyTorch and this file; in a backward, the one that started it."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path != Path(__file__) and not path.is_relative_to(_TORCH):
            return f", {'/'.join(path.parts[-2:])}, line {frame.lineno}"
    return ""
