"""Processes stop after the same step, whoever of them a signal reached, and whenever."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

pytest.importorskip("accelerate")
pytest.importorskip("timm")

from cycledistill.recipes.run.accelerator import open_accelerator
from cycledistill.recipes.run.guard.signals import StopRequest, heeded
from cycledistill.recipes.run.guard.vote import StopVote
from cycledistill.recipes.run.step import Inputs
from tests.recipes.run.toy import ToySession, load_recipe, train
from tests.spawn import run

pytestmark = pytest.mark.slow


def stopped(rank: int, world: int, folder: Path, moment: str) -> tuple[int, int, int]:
    """The second process alone is asked, before its third step or in the middle of it; where each process stops."""
    seen: list[ToySession] = []

    class Asked(ToySession):
        def prepare(self) -> Any:
            self.ask("before")
            return super().prepare()

        def terms(self, inputs: Inputs, logs: bool) -> dict[str, Tensor]:
            self.ask("in the step")
            return super().terms(inputs, logs)

        def ask(self, when: str) -> None:
            seen[:] = [self]
            if (rank, self.step, when) == (1, 2, moment):
                os.kill(os.getpid(), signal.SIGUSR1)

    recipe = load_recipe(
        {"schedule": {"epochs": 50}, "run": {"output": str(folder), "device": "cpu", "progress": False}}
    )
    try:
        with heeded():
            train(recipe, session_class=Asked)
    except StopRequest as request:
        return request.number, request.code, seen[0].step
    return 0, 0, -1


def silent() -> bool:
    """Where nothing is listened to, nothing is sent."""
    with open_accelerator("cpu", "fp32") as accelerator:
        vote = StopVote(accelerator)
        vote.cast()
        return vote.sent is None and vote.count() is None


def both(rank: int, world: int, folder: Path) -> list[Any]:
    assert silent()
    return [stopped(rank, world, folder / moment, moment) for moment in ("before", "in the step")]


def test_all_stop_after_one_step_and_the_first_saves(tmp_path: Path) -> None:
    found = run(both, tmp_path)
    assert found[0] == found[1]
    assert [each[:2] for each in found[0]] == [(signal.SIGUSR1, 143)] * 2
    assert [each[2] for each in found[0]] == [4, 4]  # what is heard once a step has begun counts in the next
    for moment in ("before", "in the step"):
        assert [path.name for path in (tmp_path / moment / "checkpoints").iterdir()] == ["step-00000004"]
