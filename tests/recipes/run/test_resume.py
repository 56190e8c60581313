"""A run that stopped anywhere goes on bit for bit. What integrations add to it is tested with each, by one case."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("accelerate")
pytest.importorskip("timm")

from cycledistill.recipes.errors import CheckpointError, NonFiniteLossError, RecipeError
from cycledistill.recipes.run.logs import RunLog
from cycledistill.recipes.run.step import Inputs
from cycledistill.recipes.weights.checkpoint import store_of
from tests.recipes.run.toy import ToyRecipe, ToySession, change, load_recipe, train
from tests.recipes.run_checks import assert_same_state, last, rows


@pytest.fixture
def tiny(tmp_path: Path) -> ToyRecipe:
    """Two epochs of four steps."""
    return load_recipe(
        {
            "ema": {"enabled": True, "decay": 0.9},
            "run": {"output": str(tmp_path / "run"), "device": "cpu", "log_every": 3, "progress": False},
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [4, 2, 7], ids=["end of an epoch", "mid-epoch", "mid second epoch"])
def test_resume_is_bit_exact(tiny: ToyRecipe, tmp_path: Path, stop: int, workers: int) -> None:
    whole = change(tiny, run__output=str(tmp_path / "whole"))
    parts = change(tiny, run__output=str(tmp_path / "parts"), data__workers=workers)
    assert train(whole)["finished"]
    summary = train(change(parts, run__max_steps=stop))
    assert (summary["step"], summary["finished"]) == (stop, False)
    torch.manual_seed(123)  # a new process has other generators
    train(parts, resume="auto")
    assert_same_state(last(whole), last(parts))
    assert rows(parts) == rows(whole)


def test_a_summary_has_null_where_there_is_no_checkpoint(tiny: ToyRecipe) -> None:
    summary = train(change(tiny, schedule__epochs=0))
    assert (summary["step"], summary["checkpoint"], summary["best"]) == (0, None, None)
    summary = train(tiny)  # the toy's store knows no figure to choose by
    assert (summary["checkpoint"], summary["best"]) == (str(last(tiny)), None)


def test_runs_depend_on_the_seed_and_on_nothing_else(tiny: ToyRecipe, tmp_path: Path) -> None:
    recipes = [change(tiny, run__output=str(tmp_path / str(i)), run__max_steps=3, run__seed=i // 2) for i in range(3)]
    for recipe in recipes:
        torch.rand(5)
        train(recipe)
    assert_same_state(last(recipes[0]), last(recipes[1]))
    with pytest.raises(AssertionError):
        assert_same_state(last(recipes[0]), last(recipes[2]))


class Killed(ToySession):
    """Dies in its eighth step."""

    def terms(self, inputs: Inputs, logs: bool) -> dict[str, Tensor]:
        if self.step == 7:
            raise KeyboardInterrupt
        return super().terms(inputs, logs)


def test_a_killed_run_goes_on_from_inside_an_epoch_and_repeats_no_row(tiny: ToyRecipe, tmp_path: Path) -> None:
    whole, killed = (change(tiny, run__output=str(tmp_path / name), run__log_every=1) for name in ("whole", "killed"))
    train(whole)
    killed = change(killed, run__save_every_steps=3)
    with pytest.raises(KeyboardInterrupt):
        train(killed, session_class=Killed)
    assert last(killed).name == "step-00000006"  # the second of the second epoch
    with (tmp_path / "killed" / "log.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # the line it was writing
    train(killed, resume="auto")
    assert_same_state(last(whole), last(killed))
    for kind in ("train", "eval"):
        assert rows(killed, kind) == rows(whole, kind)
        tables = [
            list(csv.DictReader((tmp_path / run / f"{kind}.csv").read_text().splitlines()))
            for run in ("whole", "killed")
        ]
        assert [{**row, "seconds": ""} for row in tables[0]] == [{**row, "seconds": ""} for row in tables[1]]
    assert [row["step"] for row in rows(whole)] == list(range(1, 9))


def test_terms_are_means_over_the_steps_between_two_rows_and_measures_are_not(tiny: ToyRecipe, tmp_path: Path) -> None:
    each, third = (change(tiny, run__output=str(tmp_path / str(n)), run__log_every=n) for n in (1, 3))
    train(each)
    train(third)
    steps, first = rows(each)[:3], rows(third)[0]
    for name in ("loss", "task", "pull"):
        assert first[name] == pytest.approx(sum(row[name] for row in steps) / 3)
    assert all(row["loss"] == pytest.approx(row["task"] + row["pull"]) for row in steps)
    for name in ("rms", "lr", "half"):
        assert first[name] == steps[2][name]


class Poisoned(ToySession):
    """Gets no number in its third step."""

    def inputs(self, batch: Tensor) -> Inputs:
        return super().inputs(batch * math.nan if self.step == 2 else batch)


def test_a_loss_that_is_no_number_stops_before_it_reaches_the_weights(tiny: ToyRecipe) -> None:
    with pytest.raises(NonFiniteLossError, match="not updated by this step; no checkpoint was saved."):
        train(change(tiny, run__output=f"{tiny.run.output}-first"), session_class=Poisoned)
    train(change(tiny, run__max_steps=2))
    before = {file.name: file.read_bytes() for file in last(tiny).iterdir()}
    with pytest.raises(NonFiniteLossError, match=r"nan at step 2 \(epoch 0, batch 2\).*task.*step-00000002"):
        train(tiny, resume="auto", session_class=Poisoned)
    assert {file.name: file.read_bytes() for file in last(tiny).iterdir()} == before


def test_a_run_is_not_written_over(tiny: ToyRecipe) -> None:
    train(change(tiny, run__max_steps=2))
    with pytest.raises(RecipeError, match="holds a run already"):
        train(tiny)
    with pytest.raises(CheckpointError, match="3 items a step, this run has 4"):
        train(change(tiny, data__batch_size=4), resume="auto")
    first = last(tiny)
    train(change(tiny, run__max_steps=3), resume="auto")
    with pytest.raises(RecipeError, match="holds checkpoints after step-00000002"):
        train(tiny, resume=str(first))
    branch = change(tiny, run__output=str(Path(tiny.run.output).with_name("branch")))
    assert train(branch, resume=str(first))["step"] == 8


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is_built(
    tiny: ToyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated: permission bits do not bind root."""
    monkeypatch.setattr(ToySession, "assemble", lambda *_, **__: pytest.fail("the run was put together"))
    touch, place = Path.touch, Path(tiny.run.output).parent

    def read_only(path: Path, *args: Any, **kwargs: Any) -> None:
        if path.is_relative_to(place):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        touch(path, *args, **kwargs)

    with monkeypatch.context() as patched, pytest.raises(RecipeError) as error:
        patched.setattr(Path, "touch", read_only)
        train(tiny)
    assert str(error.value).startswith(f"run.output={tiny.run.output!r} cannot be written to: [Errno 13]")
    (Path(tiny.run.output) / "log.jsonl").mkdir(parents=True)
    with pytest.raises(RecipeError, match=r"cannot be written to: .*log\.jsonl"):
        train(tiny)


class Refused(ToySession):
    @classmethod
    def assemble(cls, *args: Any, **kwargs: Any) -> Any:
        raise RecipeError("it does not fit")


def test_a_refused_run_leaves_no_folder_behind(tiny: ToyRecipe, tmp_path: Path) -> None:
    nested = change(tiny, run__output=str(tmp_path / "a" / "b"))
    with pytest.raises(RecipeError, match="it does not fit"):
        train(nested, session_class=Refused)
    with pytest.raises(CheckpointError, match="does not exist"):
        train(nested, resume=str(tmp_path / "absent"))
    assert list(tmp_path.iterdir()) == []
    assert train(change(nested, run__max_steps=1))["step"] == 1


def test_a_log_that_cannot_be_written_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "a" / "log.jsonl").mkdir(parents=True)
    for folder in (tmp_path / "file" / "run", tmp_path / "a"):
        with pytest.raises(CheckpointError, match=rf"the log cannot be written to {folder}: .*start again: no check"):
            RunLog(folder)
    (tmp_path / "b").mkdir()
    log, saved = RunLog(tmp_path / "b"), tmp_path / "b" / "checkpoints" / "step-00000001"
    log.write("train", step=1, loss=0.5)
    for name, how in (("train.csv", "start again: no checkpoint was saved"), ("log.jsonl", f"--resume: .* is {saved}")):
        (tmp_path / "b" / name).unlink()
        (tmp_path / "b" / name).mkdir()
        with pytest.raises(CheckpointError, match=f"the log cannot be written.*Make room there, and .*{how}"):
            log.write("train", step=2, loss=0.5)
        saved.mkdir(parents=True, exist_ok=True)
        (saved / "recipe.json").touch()


def test_a_checkpoint_that_cannot_be_written_names_the_last_where_there_is_one(tmp_path: Path) -> None:
    store = store_of(tmp_path)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for ends in ("and start again: no checkpoint was saved.", f"--resume: the last checkpoint is {store.folder}/step-"):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(CheckpointError, match=ends):
            patch.setattr("cycledistill.recipes.weights.checkpoint.write_torch", full)
            store.save(2, {"a": torch.ones(1)}, None, {}, {"command": "toy"})
        store.save(1, {"a": torch.ones(1)}, None, {}, {"command": "toy"})


class OtherSession(ToySession):
    command = "other"


def test_a_run_of_another_command_is_not_gone_on_from(tiny: ToyRecipe) -> None:
    train(change(tiny, run__max_steps=2), session_class=OtherSession)
    with pytest.raises(CheckpointError, match="was trained by `cycledistill train other`"):
        train(tiny, resume="auto")
    assert train(tiny, resume="auto", session_class=OtherSession)["step"] == 8


def test_a_recipe_in_the_words_of_an_earlier_version_is_no_other_one(
    tiny: ToyRecipe, caplog: pytest.LogCaptureFixture
) -> None:
    train(change(tiny, run__max_steps=2))
    file = last(tiny) / "recipe.json"
    stored = json.loads(file.read_text())
    stored["recipe"]["run"]["compile"] = False
    del stored["recipe"]["run"]["compile_backend"]
    file.write_text(json.dumps(stored))
    train(change(tiny, run__max_steps=3), resume="auto")
    stored["recipe"]["run"]["gone"] = 1
    file.write_text(json.dumps(stored))
    train(change(tiny, run__output=str(file.parents[2]) + "-again", run__max_steps=3), resume=str(file.parent))
    said = [message.partition(": ")[2] for message in caplog.messages if message.startswith("resuming with another")]
    assert said[:1] == ["run.max_steps: 2 -> 3"]
    assert "run.compile: False -> 'none'" in said[1:] and "run.gone: 1 -> None" in said


@pytest.mark.parametrize(
    "line",
    ["5", "[]", "{}", '{"step": null, "kind": "train"}', '{"step": 1, "kind": []}', "\ufffd", "[" * 100_000, "{"],
    ids=["number", "list", "empty", "step", "kind", "bytes", "deep", "cut"],
)
def test_a_line_of_the_log_that_is_no_row_ends_what_is_taken_over(tmp_path: Path, line: str) -> None:
    (tmp_path / "log.jsonl").write_text(f'{{"kind": "train", "step": 1}}\n{line}\n{{"kind": "train", "step": 2}}\n')
    RunLog(tmp_path, 5).write("train", step=6)
    assert [json.loads(row)["step"] for row in (tmp_path / "log.jsonl").read_text().splitlines()] == [1, 6]
