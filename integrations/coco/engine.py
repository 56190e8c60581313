"""Accelerate for one run: made from the recipe, and taken down with its process group afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from .recipe import ConfigError, RunSection

_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


@contextmanager
def engine(run: RunSection) -> Iterator[Accelerator]:
    """An ``Accelerator`` for the process that ``accelerate launch``, ``torchrun`` or plain ``python`` started.

    Accelerate keeps one state a process, so that a second run of another precision would be refused. A state that was
    there before is left alone.

    Raises:
        ConfigError: The device does not have the precision.
    """
    found = bool(AcceleratorState._shared_state or PartialState._shared_state)
    grouped = dist.is_initialized()
    try:
        try:
            # Without the word, Accelerate lets processes that torchrun started on CPUs run side by side, each alone.
            cpu = run.device == "cpu" or not torch.accelerator.is_available()
            accelerator = Accelerator(cpu=cpu, mixed_precision=_PRECISION[run.precision])
        except ValueError as error:
            raise ConfigError(f"run.precision={run.precision!r}, run.device={run.device!r}: {error}") from error
        announced = int(os.environ.get("WORLD_SIZE", "1"))
        if accelerator.num_processes != announced:
            raise ConfigError(
                f"{announced} processes were started, and Accelerate joined {accelerator.num_processes} of them: start "
                "them by torchrun or accelerate launch, one a GPU, or with run.device=cpu."
            )
        yield accelerator
    finally:
        if not found:
            AcceleratorState._reset_state(reset_partial_state=True)
        if not grouped and dist.is_initialized():
            dist.destroy_process_group()
