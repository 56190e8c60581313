"""Which process this is, and which device it has."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
import torch.distributed as dist
from timm.utils.distributed import init_distributed_device_so

from .recipe import RecipeError

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """One process of a run: its device, its number and how many there are."""

    device: torch.device
    rank: int = 0
    world: int = 1
    owner: bool = False

    @property
    def primary(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def device_ids(self) -> list[int] | None:
        """What DDP wants to know: the GPU's number, or nothing on a CPU."""
        return [self.device.index or 0] if self.device.type == "cuda" else None

    def leave(self) -> None:
        """Close the process group, if :func:`take_place` opened it."""
        if self.owner and dist.is_initialized():
            dist.destroy_process_group()


def take_place(device: str = "auto") -> Place:
    """Join the process group that ``torchrun`` announces, or stand alone.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"``: a GPU where there is one. Several CPU processes
            talk through gloo.

    Raises:
        RecipeError: The device is not there.
    """
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise RecipeError(f"run.device={device!r}: 'cpu', 'cuda', 'cuda:1' or 'auto' is expected.") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise RecipeError(f"run.device={device!r}: no CUDA device is available here; use 'cpu' or 'auto'.")
    if dist.is_initialized():
        return Place(torch.device(name), dist.get_rank(), dist.get_world_size())
    found = init_distributed_device_so(name)
    place = Place(torch.device(found["device"]), found["global_rank"], found["world_size"], found["distributed"])
    _logger.info("process %d of %d on %s", place.rank, place.world, place.device)
    return place
