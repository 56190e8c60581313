"""A run goes on by its own recipe where no other is named, with flags on top."""

from __future__ import annotations

import importlib
import json
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("accelerate")
pytest.importorskip("timm")

from cycledistill.recipes.run.command import Command
from cycledistill.recipes.run.guard.signals import StopRequest

NAMES = ["coco", "human36m", "imagenet", "multiview"]
TINY = {
    "model": {"name": "frame_lifter", "options": {"dim": 8, "depth": 2, "heads": 2}},
    "cyclic": {"cycles": 2},
    "data": {"source": "generated", "sequences": 2, "length": 18, "views": 2, "frames": 9, "batch_size": 2},
    "evaluate": {"exits": [1]},
    "run": {"device": "cpu", "progress": False},
}


def command_of(name: str) -> Command:
    return importlib.import_module(f"cycledistill.integrations.{name}.train").COMMAND


def recipe_of(name: str, *words: str) -> Any:
    command = command_of(name)
    return command.recipe(command.parser().parse_args([str(word) for word in words]))


def leave_run(name: str, folder: Path, step: int, measured: bool = True, **keys: Any) -> Path:
    """A checkpoint as far as its recipe is read."""
    load_recipe = importlib.import_module(f"{command_of(name).package}.recipe").load_recipe
    recipe = load_recipe(None, {key.replace("__", "."): value for key, value in keys.items()}).to_dict()
    checkpoint = folder / "checkpoints" / f"step-{step:08d}"
    checkpoint.mkdir(parents=True)
    left = {"command": name, "recipe": recipe, "step": step, "metrics": {"step": step} if measured else {}}
    (checkpoint / "recipe.json").write_text(json.dumps(left))
    return checkpoint


@pytest.mark.parametrize("name", NAMES)
def test_what_is_resumed_goes_on_by_its_own_recipe(name: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    checkpoint = leave_run(name, run, 5, schedule__epochs=30, run__seed=7, run__output=str(run))
    for words in (
        ["--resume", run],
        ["--resume", checkpoint],
        ["--resume", "auto", "--output", run],
        ["--resume", "auto", "--set", f"run.output={run}"],
    ):
        recipe = recipe_of(name, *words)
        assert (recipe.schedule.epochs, recipe.run.seed, recipe.run.output) == (30, 7, str(run)), words
    recipe = recipe_of(name, "--resume", run, "--output", "other", "--epochs", "40", "--set", "run.keep=3")
    assert (recipe.schedule.epochs, recipe.run.seed, recipe.run.output, recipe.run.keep) == (40, 7, "other", 3)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_that_is_named_is_taken(name: str, tmp_path: Path) -> None:
    leave_run(name, tmp_path / "run", 5, run__seed=7)
    (tmp_path / "named.yaml").write_text("schedule: {epochs: 9}")
    recipe = recipe_of(name, "--config", tmp_path / "named.yaml", "--resume", tmp_path / "run")
    assert (recipe.schedule.epochs, recipe.run.seed) == (9, 0)


def test_a_first_start_with_resume_auto_has_the_default_recipe(tmp_path: Path) -> None:
    output = str(tmp_path / "absent")
    assert recipe_of("coco", "--resume", "auto", "--output", output) == recipe_of("coco", "--output", output)


def test_the_default_output_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    leave_run("human36m", Path("runs/human36m"), 5, run__seed=7)
    assert recipe_of("human36m", "--resume", "auto").run.seed == 7


def test_a_run_that_was_moved_goes_on_where_it_is(tmp_path: Path) -> None:
    leave_run("coco", tmp_path / "moved", 5, run__output="/where/it/was")
    assert recipe_of("coco", "--resume", tmp_path / "moved").run.output == str(tmp_path / "moved")


@pytest.mark.parametrize(("limit", "goes_on_to"), [(5, None), (6, 6), (None, None)])
def test_a_limit_that_was_reached_stops_no_second_time(tmp_path: Path, limit: int | None, goes_on_to: object) -> None:
    leave_run("coco", tmp_path, 5, run__max_steps=limit)
    assert recipe_of("coco", "--resume", tmp_path).run.max_steps == goes_on_to
    assert recipe_of("coco", "--resume", tmp_path, "--max-steps", "8").run.max_steps == 8


def test_a_limit_stays_where_the_last_checkpoint_is_still_to_be_measured(tmp_path: Path) -> None:
    run = tmp_path / "run"
    checkpoint = leave_run("coco", run, 5, measured=False, run__max_steps=5)
    for words in (
        ["--resume", run],
        ["--resume", checkpoint],
        ["--resume", checkpoint, "--output", f"{run}/"],
        ["--resume", "auto", "--output", run],
    ):
        assert recipe_of("coco", *words).run.max_steps == 5, words
    elsewhere = recipe_of("coco", "--resume", run, "--output", tmp_path / "other")
    assert elsewhere.run.max_steps is None  # it is not its to measure


def test_the_printed_command_measures_what_was_stopped_at_its_limit_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cycledistill.integrations.human36m.training.session import Session

    def stopped(self: Session, model: Any) -> Any:
        raise StopRequest(signal.SIGTERM)

    recipe, output = tmp_path / "recipe.yaml", str(tmp_path / "run")
    recipe.write_text(json.dumps(TINY))  # JSON is YAML
    with monkeypatch.context() as patched:
        patched.setattr(Session, "measure", stopped)
        words = ["--config", str(recipe), "--output", output, "--epochs", "2", "--max-steps", "2"]
        assert command_of("human36m").main(words) == 143
    how = shlex.split(capsys.readouterr().err.splitlines()[-1])
    assert command_of("human36m").main(how[how.index("--resume") :]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["step"], summary["finished"], list(summary["exits"])) == (2, False, ["1"])
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert json.loads((checkpoint / "recipe.json").read_text())["metrics"]["exits"].keys() == {"1"}


def test_what_cannot_be_resumed_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "w.safetensors").touch()
    leave_run("imagenet", tmp_path / "other", 1)
    for path, said in (
        ("absent", "does not exist"),
        ("w.safetensors", "holds no complete checkpoint: expected a folder"),
        ("other", "was trained by `cycledistill train imagenet`"),
    ):
        assert command_of("coco").main(["--resume", str(tmp_path / path)]) == 2
        assert said in capsys.readouterr().err
