"""What studies train on: pictures and persons from files, and mazes, curves and figures that are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..errors import StudyError
from .curves import Curves
from .figures import Figures
from .mazes import Mazes
from .persons import Persons
from .pictures import Pictures
from .task import Task

KINDS: dict[str, type[Task]] = {
    "mazes": Mazes,
    "curves": Curves,
    "pictures": Pictures,
    "figures": Figures,
    "persons": Persons,
}


def open_task(settings: dict[str, Any], data: Path | None, device: torch.device) -> Task:
    """The task of a plan, with its data on the device.

    Raises:
        StudyError: There is no such kind or setting, or its files are not there.
    """
    settings = dict(settings)
    kind = settings.pop("kind", None)
    if kind not in KINDS:
        raise StudyError(f"task.kind: {kind!r}: one of {', '.join(KINDS)} is expected")
    try:
        return KINDS[kind](data=data, device=device, **settings)
    except TypeError as error:
        raise StudyError(f"task of kind {kind}: {error}") from error
