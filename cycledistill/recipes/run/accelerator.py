"""Accelerate for one run: made from the recipe, and taken down with its process group afterwards."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from cycledistill.recipes.errors import RecipeError
from cycledistill.recipes.run.precision import has_units
from cycledistill.versions import require

_logger = logging.getLogger(__name__)

T = TypeVar("T", bound=nn.Module)

_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def open_accelerator(
    device: str, precision: str, option: str = "run.device", *, log_with: Sequence[str] = (), folder: str = "."
) -> Iterator[Any]:
    """An ``Accelerator`` for the process that ``accelerate launch``, ``torchrun`` or plain ``python`` started.

    Accelerate keeps one state a process, so that a second run of another precision would be refused. A state that was
    there before is left alone.

    Args:
        device: ``"auto"``, ``"cpu"``, or what is here.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        option: What says the device, for messages: a recipe's field, or a command's ``--device``.
        log_with: The trackers that `start_trackers` starts.
        folder: Where those of them write that write files.

    Raises:
        RecipeError: The device is not there, or does not have the precision; a tracker is not installed.
    """
    require("accelerate")
    # imported late: recipes are read where Accelerate is not installed
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    here = _check_device(device, option)
    _check_trackers(log_with)
    found = bool(AcceleratorState._shared_state or PartialState._shared_state)
    grouped = dist.is_initialized()
    try:
        try:
            # Without the word, Accelerate lets processes that torchrun started on CPUs run side by side, each alone.
            cpu = "cpu" in (device, here)
            accelerator = Accelerator(
                cpu=cpu, mixed_precision=_PRECISION[precision], log_with=list(log_with) or None, project_dir=folder
            )
        except ValueError as error:
            raise RecipeError(f"run.precision={precision!r}, {option}={device!r}: {error}") from error
        if precision == "fp16" and accelerator.device.type == "cpu":
            # Accelerate would train in fp32 there, without a word
            accelerator.native_amp, accelerator.scaler = True, torch.amp.GradScaler("cpu")
        _check_precision(accelerator.device, precision)
        announced = int(os.environ.get("WORLD_SIZE", "1"))
        if accelerator.num_processes != announced:
            raise RecipeError(
                f"{announced} processes were started, and Accelerate joined {accelerator.num_processes} of them: start "
                f"them by torchrun or accelerate launch, one a GPU, or with {option}=cpu."
            )
        yield accelerator
    finally:
        if not found:
            AcceleratorState._reset_state(reset_partial_state=True)
        if not grouped and dist.is_initialized():
            dist.destroy_process_group()


def shared() -> bool:
    """Whether several processes share the work of this run."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def synced_batch_norm(task: T, accelerator: Any) -> T:
    """A task whose BatchNorms normalise by the batch of all processes together; as it is where there is one process.

    Raises:
        RecipeError: The processes have no GPUs.
    """
    if accelerator.num_processes == 1:
        return task
    if accelerator.device.type != "cuda":
        raise RecipeError(
            f"run.sync_batch_norm=true with {accelerator.num_processes} processes on {accelerator.device.type}: "
            "PyTorch synchronises BatchNorm on GPUs alone; set it to false, and each process normalises by its own "
            "share of the batch."
        )
    synced: T = nn.SyncBatchNorm.convert_sync_batchnorm(task)
    return synced


def _check_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker that Accelerate would leave out without a word."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise RecipeError(f"run.log_with has {name}, which is not installed: pip install {name}")


def _check_device(device: str, option: str) -> str:
    """The type of the accelerator that is here, or ``"cpu"``; a device that is not here is refused."""
    found = torch.accelerator.current_accelerator(check_available=True)
    here = found.type if found is not None else "cpu"
    if device not in ("auto", "cpu", here):
        without = device == "cuda" and not torch.backends.cuda.is_built()
        why = f" (PyTorch {torch.__version__} is built without CUDA)" if without else ""
        there = ", ".join(dict.fromkeys(("cpu", here)))
        raise RecipeError(f"{option}={device!r} is not here{why}; there is: {there}.")
    return here


def _check_precision(device: torch.device, precision: str) -> None:
    """Refuse, or on a CPU warn of, a precision that the device would only emulate."""
    if has_units(device, _TYPES[precision]):
        return
    if device.type != "cpu":
        raise RecipeError(f"run.precision={precision!r}: {device} has no units for it; set fp16 or fp32.")
    _logger.warning(
        "run.precision=%s: this processor has no units for it, and emulating it is several times slower than fp32",
        precision,
    )


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Mixed precision for ``"bf16"`` and ``"fp16"``, nothing for ``"fp32"``."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_TYPES[precision])
