"""Weights are saved before they are measured: an evaluation that fails takes no epoch, and is made up for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("accelerate")
pytest.importorskip("timm")

from cycledistill.files import atomic_write
from cycledistill.recipes.errors import CheckpointError, DataError
from cycledistill.recipes.weights import checkpoint as checkpoint_module
from cycledistill.recipes.weights.checkpoint import CheckpointStore, read_recipe
from tests.recipes.run.toy import ToyRecipe, ToySession, change, load_recipe, train
from tests.recipes.run_checks import assert_same_state, last, rows


@pytest.fixture
def tiny(tmp_path: Path) -> ToyRecipe:
    """Two epochs of four steps, each measured."""
    return load_recipe({"run": {"output": str(tmp_path / "run"), "device": "cpu", "log_every": 3, "progress": False},
                        "ema": {"enabled": True}})  # fmt: skip


def failing(step: int, after: bool) -> type[ToySession]:
    """A session whose evaluation of a step fails, before or after its row of the log is written."""

    class Failing(ToySession):
        def evaluate(self, **logged: Any) -> dict[str, Any]:
            measured = super().evaluate(**logged) if after or self.step != step else {}
            if self.step == step:
                raise DataError("val/7.jpg: cannot be read")
            return measured

    return Failing


def metrics(recipe: ToyRecipe, step: int) -> dict[str, Any]:
    found: dict[str, Any] = read_recipe(Path(recipe.run.output) / "checkpoints" / f"step-{step:08d}")["metrics"]
    return found


@pytest.mark.parametrize("after", [False, True], ids=["before its row", "after its row"])
@pytest.mark.parametrize("step", [4, 8], ids=["first epoch", "end of the run"])
def test_an_evaluation_that_fails_costs_no_epoch_and_is_made_up_for_once(
    tiny: ToyRecipe, tmp_path: Path, step: int, after: bool
) -> None:
    whole = change(tiny, run__output=str(tmp_path / "whole"))
    summary = train(whole)
    with pytest.raises(DataError, match="cannot be read"):
        train(tiny, session_class=failing(step, after))
    assert last(tiny).name == f"step-{step:08d}"
    assert metrics(tiny, step) == {}
    again = train(tiny, resume="auto")
    assert (again["size"], again["finished"]) == (summary["size"], True)
    assert_same_state(last(whole), last(tiny))
    for kind in ("train", "eval"):
        assert rows(tiny, kind) == rows(whole, kind)
    assert [metrics(tiny, each) for each in (4, 8)] == [metrics(whole, each) for each in (4, 8)]
    assert metrics(tiny, 8)["step"] == 8
    assert "size" not in train(tiny, resume="auto", session_class=failing(8, False))  # nothing is measured again
    assert rows(tiny, "eval") == rows(whole, "eval")


def test_a_run_that_ends_early_is_measured_there_and_nowhere_else_inside_an_epoch(tiny: ToyRecipe) -> None:
    early = change(tiny, run__max_steps=2)
    with pytest.raises(DataError):
        train(early, session_class=failing(2, True))
    train(early, resume="auto")
    assert [row["step"] for row in rows(tiny, "eval")] == [2]
    third = change(tiny, run__max_steps=3)
    with pytest.raises(DataError):
        train(third, resume="auto", session_class=failing(3, True))
    train(tiny, resume="auto")  # goes on past it: a run that was not ended there has no figures there
    assert metrics(tiny, 8) and [row["step"] for row in rows(tiny, "eval")] == [2, 3, 4, 8]


def test_an_evaluation_of_another_runs_checkpoint_is_not_made_up_for(tiny: ToyRecipe, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        train(tiny, session_class=failing(4, False))
    branch = change(tiny, run__output=str(tmp_path / "branch"))
    train(branch, resume=str(last(tiny)))
    assert metrics(tiny, 4) == {}
    assert [row["step"] for row in rows(branch, "eval")] == [8]


class Scored(ToySession):
    """Best in the first epoch."""

    @classmethod
    def best_by(cls, recipe: ToyRecipe) -> tuple[str, ...]:
        return "exits", "1", "score"

    def evaluate(self, **logged: Any) -> dict[str, Any]:
        return {"exits": {"1": {"score": 1 / self.step}}}


def test_the_best_is_kept_although_its_figures_come_after_it(tiny: ToyRecipe) -> None:
    recipe = change(tiny, run__keep=1, schedule__epochs=4)
    summary = train(recipe, session_class=Scored)
    kept = [path.name for path in CheckpointStore(Path(recipe.run.output) / "checkpoints").complete()]
    assert kept == ["step-00000004", "step-00000016"]
    assert Path(summary["best"]).name == "step-00000004"

    class Rising(Scored):
        def evaluate(self, **logged: Any) -> dict[str, Any]:
            return {"exits": {"1": {"score": self.step}}}

    rising = change(recipe, run__output=recipe.run.output + "2")
    train(rising, session_class=Rising)
    kept = [path.name for path in CheckpointStore(Path(rising.run.output) / "checkpoints").complete()]
    assert kept == ["step-00000016"]  # the best so far goes as soon as there is a better one


def test_figures_that_cannot_be_written_leave_the_checkpoint(
    tiny: ToyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.name == "recipe.json":
            raise OSError(28, "No space left on device", str(path))
        return atomic_write(path, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint_module, "atomic_write", full)
        with pytest.raises(CheckpointError, match=r"measured cannot be added to .*step-00000004: .*No space.*--resume"):
            train(tiny)
    assert json.loads((last(tiny) / "recipe.json").read_text())["metrics"] == {}
    whole = change(tiny, run__output=str(tmp_path / "whole"))
    train(whole)
    train(tiny, resume="auto")
    assert_same_state(last(whole), last(tiny))
    assert rows(tiny, "eval") == rows(whole, "eval")


def test_validation_data_is_looked_at_before_the_first_step(tiny: ToyRecipe) -> None:
    class Unreadable(ToySession):
        def look_at_validation(self) -> None:
            raise DataError("val/0.jpg: cannot be read")

        def prepare(self) -> Any:
            pytest.fail("a step was done")

    with pytest.raises(DataError, match=r"val/0\.jpg"):
        train(tiny, session_class=Unreadable)


def test_buffers_are_saved_as_they_are_measured(tiny: ToyRecipe) -> None:
    """Processes share BatchNorm's statistics before an evaluation; a run that goes on from there has those."""
    done: list[str] = []

    class Ordered(ToySession):
        def share_buffers(self) -> None:
            done.append("share")

        def save(self) -> Path | None:
            done.append(f"save {self.step}")
            return super().save()

        def evaluate(self, **logged: Any) -> dict[str, Any]:
            done.append("measure")
            return super().evaluate(**logged)

    train(change(tiny, evaluate__every=2, run__save_every_steps=2), session_class=Ordered)
    assert done == ["save 2", "save 4", "save 6", "share", "save 8", "measure"]
