"""What studies train on: pictures and persons from files, and mazes, curves and figures that are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cycledistill.recipes.config.overrides import did_you_mean

from ..errors import StudyError
from ..expected import unfit
from ..plan import Plan
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
        StudyError: There is no such kind or setting, a setting is out of range, or the task's files are not there.
    """
    check_settings(settings)
    given = {name: value for name, value in settings.items() if name != "kind"}
    return KINDS[settings["kind"]](data=data, device=device, **given)


def task_of(plan: Plan, data: Path | None, device: torch.device) -> Task:
    """As `open_task`; what is wrong is named with the study."""
    try:
        return open_task(plan.task, data, device)
    except StudyError as error:
        raise StudyError(f"{plan.name}: {error}") from error


def check_settings(settings: dict[str, Any]) -> None:
    """Refuse what a plan says of its task, before its data are looked for.

    Raises:
        StudyError: With the key, and what is expected.
    """
    kind = settings.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise StudyError(f"task.kind: {kind!r}: one of {', '.join(KINDS)} is expected")
    known = KINDS[kind].settings
    for name in settings:
        if name != "kind" and name not in known:
            near = did_you_mean(name, list(known))
            raise StudyError(f"unknown key 'task.{name}'.{near} A task of kind {kind} has {', '.join(known)}.")
    if missing := [name for name, each in known.items() if each.needed and name not in settings]:
        raise StudyError(f"task.{missing[0]}: {known[missing[0]].says} is expected, and a task of kind {kind} needs it")
    if wrong := unfit(settings, known):
        raise StudyError(f"task.{wrong}")
