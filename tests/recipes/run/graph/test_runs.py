"""Whole runs with ``run.compile=graph``: as eager ones, resumed bit for bit, and eager where it must be, said once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

pytest.importorskip("accelerate")
pytest.importorskip("timm")

from cycledistill.recipes.errors import NonFiniteLossError, RecipeError
from cycledistill.recipes.run.step import Inputs
from tests.recipes.run import toy
from tests.recipes.run.toy import Task, ToyRecipe, ToySession, change, load_recipe, train
from tests.recipes.run_checks import assert_graphs_change_nothing, assert_same_state, in_graphs, last, rows


class Plain(Task):
    """The toy's task without the count, which is no tensor."""

    def forward(self, items: Tensor) -> dict[str, Tensor]:
        task = (self.model(items) - items).square().mean()
        return {"loss": task, "task": task, "pull": 0 * task}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyRecipe:
    """Two epochs of three batches of four items."""
    monkeypatch.setattr(toy, "Task", Plain)
    return load_recipe(
        {
            "data": {"batch_size": 4},
            "optim": {"clip": 0.5},
            "ema": {"enabled": True, "decay": 0.9, "warmup": True},
            "run": {"output": str(tmp_path / "run"), "device": "cpu", "log_every": 2, "progress": False},
        }
    )


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_resume_is_bit_exact(tiny: ToyRecipe, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    capture = in_graphs(monkeypatch)
    assert_graphs_change_nothing(train, tiny, capture, stop)
    assert capture.replays == 2 * (5 + (stop - 1) + (6 - stop))  # all steps but the first of a run


def test_eager_runs_go_on_from_graphs_and_graphs_from_eager_runs(
    tiny: ToyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_graphs(monkeypatch)
    folder = Path(tiny.run.output)
    ends = []
    for first, then in (("none", "none"), ("graph", "none"), ("none", "graph")):
        recipe = change(tiny, run__output=str(folder / f"{first} {then}"))
        train(change(recipe, run__compile=first, run__max_steps=3))
        train(change(recipe, run__compile=then), resume="auto")
        ends.append(rows(recipe))
    for other in ends[1:]:
        for row, expected in zip(other, ends[0], strict=True):
            assert row["loss"] == pytest.approx(expected["loss"], rel=1e-4)


class Poisoned(ToySession):
    """Gets no number in its fourth step."""

    current: ClassVar[ToySession]

    def inputs(self, batch: Tensor) -> Inputs:
        Poisoned.current = self
        return super().inputs(batch * torch.nan if self.step == 3 else batch)


def test_a_loss_that_is_no_number_stops_before_it_reaches_the_weights(
    tiny: ToyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = in_graphs(monkeypatch)
    recipe = change(tiny, run__compile="graph", run__save_every_steps=1)
    with pytest.raises(NonFiniteLossError, match=r"nan at step 3 \(epoch 1, batch 0\).*step-00000003"):
        train(recipe, session_class=Poisoned)
    assert capture.replays == 2 * 2 + 1  # the fourth step's update was not
    saved = load_file(last(recipe) / "model.safetensors")
    for name, value in Poisoned.current.model.named_parameters():
        assert torch.equal(saved[name], value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "a graph needs a CUDA device, and the run is on 'cpu'"),
        ({"run__precision": "fp16"}, "a graph needs a CUDA device, and the run is on 'cpu'"),
    ],
)
def test_where_there_is_no_gpu_the_run_is_an_eager_one_and_says_so_once(
    tiny: ToyRecipe,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    reason: str,
) -> None:
    monkeypatch.setattr(
        "cycledistill.recipes.run.accelerator.has_units", lambda *_: True
    )  # said apart, where it is not
    folder = Path(tiny.run.output)
    eager = change(tiny, run__output=str(folder / "eager"), **changes)
    graph = change(tiny, run__output=str(folder / "graph"), run__compile="graph", **changes)
    train(eager)
    assert not warnings(caplog)
    train(graph)
    assert warnings(caplog) == [f"run.compile=graph: the steps run eagerly: {reason}"]
    assert_same_state(last(eager), last(graph))


def test_a_task_that_counts_is_run_eagerly_and_said_once(
    tiny: ToyRecipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(toy, "Task", Task)
    capture = in_graphs(monkeypatch)
    eager, graph = (change(tiny, run__compile=how, run__output=f"{tiny.run.output}-{how}") for how in ("none", "graph"))
    train(eager)
    train(graph)
    (said,) = warnings(caplog)
    assert said.startswith("run.compile=graph: the steps run eagerly: the step itself changes a number")
    assert said.partition("keep: ")[2].startswith("seen, ")
    assert not capture.captures


def test_the_three_words_and_what_stored_recipes_have() -> None:
    for given, meant in (
        ("none", "none"),
        ("default", "default"),
        ("graph", "graph"),
        (True, "default"),
        (False, "none"),
    ):
        assert load_recipe({"run": {"compile": given}}).run.compile == meant
    assert load_recipe(None, ["run.compile=none"]).run.compile == "none"
    with pytest.raises(RecipeError, match="run.compile: got 'graphs' .*Did you mean 'graph'"):
        load_recipe({"run": {"compile": "graphs"}})


def test_nothing_is_opened_for_other_runs(tiny: ToyRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = in_graphs(monkeypatch)
    train(change(tiny, run__max_steps=2))
    assert (capture.warm_ups, capture.captures) == (0, 0)
