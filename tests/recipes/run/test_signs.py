"""What a run says where there is no terminal, what a short one leaves in its log, and what trackers are sent."""

from __future__ import annotations

import importlib.util
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("accelerate")
pytest.importorskip("timm")

from cycledistill.recipes.errors import RecipeError
from tests.recipes.run.toy import ToyRecipe, ToySession, change, load_recipe, train
from tests.recipes.run_checks import Terminal, rows

LOOP = "cycledistill.recipes.run.loop"


@pytest.fixture
def tiny(tmp_path: Path) -> ToyRecipe:
    """Two epochs of four steps."""
    return load_recipe({"run": {"output": str(tmp_path / "run"), "device": "cpu", "log_every": 3}})


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == LOOP]


def test_a_line_for_each_row_where_there_is_no_terminal(tiny: ToyRecipe, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        train(tiny)
    first, *lines = told(caplog)
    assert first == f"steps 0 to 8 of 3 items each, epoch 0 of 2; log in {tiny.run.output}"
    assert [int(line.split()[1]) for line in lines] == [row["step"] for row in rows(tiny)] == [3, 6, 8]
    for line, row in zip(lines, rows(tiny), strict=True):
        start = f"step {row['step']} of 8 (epoch {row['epoch']}): loss {row['loss']:.5g}, lr {row['lr']:.3g}, "
        assert line.startswith(start)
        assert re.fullmatch(r"[\d.e+]+ items a second, \d+:\d\d:\d\d left", line.removeprefix(start)), line
    assert lines[-1].endswith(", 0:00:00 left")


def test_the_time_left_is_by_the_clock_of_the_whole_run(
    tiny: ToyRecipe, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes a second, the evaluation of an epoch eight."""
    now = 0.0
    monkeypatch.setattr("cycledistill.recipes.progress.time", SimpleNamespace(monotonic=lambda: now))

    class Slow(ToySession):
        def prepare(self) -> tuple[float, dict[str, float]]:
            nonlocal now
            now += 1
            return super().prepare()

        def evaluate(self, **logged: Any) -> dict[str, Any]:
            nonlocal now
            now += 8
            return super().evaluate(**logged)

    with caplog.at_level(logging.INFO):
        train(tiny, session_class=Slow)
    assert [line.split(", ", 2)[2] for line in told(caplog)[1:]] == [
        "3 items a second, 0:00:05 left",
        "3 items a second, 0:00:05 left",  # 6 steps in 14 s
        "3 items a second, 0:00:00 left",
    ]


@pytest.mark.parametrize("silent", [False, True], ids=["terminal", "progress=false"])
def test_no_lines_beside_a_bar_or_where_none_are_wanted(
    silent: bool, tiny: ToyRecipe, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    if not silent:
        monkeypatch.setattr("sys.stderr", terminal)
    with caplog.at_level(logging.INFO):
        train(change(tiny, run__progress=not silent))
    assert len(told(caplog)) == 1  # the first
    assert ("epoch 1" in terminal.getvalue()) is not silent


@pytest.mark.parametrize("settings", [{"run__max_steps": 2}, {"run__log_every": 100}], ids=["stopped", "ended"])
def test_a_run_shorter_than_log_every_leaves_its_loss(tiny: ToyRecipe, settings: dict[str, Any]) -> None:
    recipe = change(tiny, **settings)
    every = change(tiny, **settings | {"run__output": tiny.run.output + "_all", "run__log_every": 1})
    train(recipe)
    train(every)
    (row,) = rows(recipe)
    losses = [each["loss"] for each in rows(every)]
    assert row["step"] == len(losses) in (2, 8)
    assert row["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-6)
    assert row["lr"] == rows(every)[-1]["lr"]


def test_who_goes_on_logs_as_if_nothing_had_been(tiny: ToyRecipe) -> None:
    whole = change(tiny, run__output=tiny.run.output + "_whole")
    train(whole)
    train(change(tiny, run__max_steps=2))
    assert [row["step"] for row in rows(tiny)] == [2]
    train(tiny, resume="auto")
    seen = [[{name: row[name] for name in row if name != "seconds"} for row in rows(each)] for each in (tiny, whole)]
    assert seen[0] == seen[1]


def test_tensorboard_is_sent_what_the_log_holds(tiny: ToyRecipe) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(change(tiny, run__log_with=["tensorboard"]))
    events = EventAccumulator(str(Path(tiny.run.output) / "cycledistill"))
    events.Reload()
    found = {each.step: each.value for each in events.Scalars("train/loss")}
    assert found == pytest.approx({row["step"]: row["loss"] for row in rows(tiny)}, rel=1e-6)
    assert "eval/size" in events.Tags()["scalars"]


def test_trackers_are_accelerates(tiny: ToyRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import tracking

    sent: list[tuple[Any, ...]] = []

    class Tracker(tracking.GeneralTracker):
        name, requires_logging_directory = "trackio", False

        def __init__(self, project: str, **options: Any) -> None:
            super().__init__()
            sent.append((project, options))

        @property
        def tracker(self) -> None: ...

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            sent.append(("recipe", values["optim.lr"], values["model.options"]))

        def log(self, values: dict[str, Any], step: int | None, **more: Any) -> None:
            sent.append((step, sorted(values)))

        def finish(self) -> None:
            sent.append(("end",))

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "trackio", Tracker)
    monkeypatch.setattr("accelerate.accelerator.filter_trackers", lambda names, folder: list(names))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    train(change(tiny, run__log_with=["trackio"], run__max_steps=3, evaluate__every=9))
    names = ["loss", "lr", "epoch", "half", "pull", "rms", "seconds", "task"]
    assert sent == [
        ("cycledistill", {"name": "run"}),
        ("recipe", 0.001, "{}"),
        (3, sorted(f"train/{name}" for name in names)),
        (3, ["eval/epoch", "eval/size"]),
        ("end",),
    ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"run.log_with": ["tensorbord"]}, "run.log_with=['tensorbord']: expected some of tensorboard, wandb, mlflow"),
        ({"run.log_with": "wandb"}, "run.log_with: got 'wandb' (str), expected a list of text"),
        ({"run.tensorboard": True}, "run.tensorboard is gone: set run.log_with=[tensorboard] in its place"),
        ({"run": {"tensorboard": True}}, "run.tensorboard is gone: set run.log_with=[tensorboard] in its place"),
    ],
)
def test_what_cannot_be_logged_with(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(said)):
        load_recipe(settings) if "run" in settings else load_recipe(None, settings)


def test_a_tracker_that_is_not_installed_is_named(tiny: ToyRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else found(name))
    with pytest.raises(RecipeError, match="run.log_with has wandb, which is not installed: pip install wandb"):
        train(change(tiny, run__log_with=["wandb"]))
    assert not Path(tiny.run.output).exists()
