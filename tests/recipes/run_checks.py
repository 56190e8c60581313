"""What tests of whole runs need: a recipe with changes, the last checkpoint, the log, and a comparison of states."""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils import _pytree as pytree

from cycledistill.exporter.exportable import open_exportable
from cycledistill.recipes.run.graph import start
from cycledistill.recipes.run.session import TrainingSession
from cycledistill.recipes.weights.checkpoint import CheckpointStore, find_checkpoint, read_state
from tests.recipes.run.graph.tape import TapeCapture
from tests.spawn import run

R = TypeVar("R")


class Terminal(io.StringIO):
    """What tqdm takes for one."""

    def isatty(self) -> bool:
        return True


def changing(load_recipe: Callable[..., R]) -> Callable[..., R]:
    """A function ``change(recipe, run__seed=1, ...)`` that gives the recipe with other values, checked as a file's."""

    def change(recipe: Any, **overrides: Any) -> R:
        return load_recipe(recipe.to_dict(), {name.replace("__", "."): value for name, value in overrides.items()})

    return change


def last(recipe: Any) -> Path:
    """The folder of a run's last checkpoint."""
    found = CheckpointStore(Path(recipe.run.output) / "checkpoints").last()
    assert found is not None
    return found


def rows(recipe: Any, kind: str = "train") -> list[dict[str, Any]]:
    """The rows of a run's log, without the time."""
    lines = (Path(recipe.run.output) / "log.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found if row["kind"] == kind]


def assert_same_state(a: Path, b: Path) -> None:
    """Weights, average and everything in the state of two checkpoints, bit for bit."""
    for name in ("model.safetensors", "ema.safetensors"):
        one, two = load_file(a / name), load_file(b / name)
        assert one.keys() == two.keys()
        assert [key for key in one if not torch.equal(one[key], two[key])] == [], name
    flat = [pytree.tree_flatten(read_state(path / "state.pt")) for path in (a, b)]
    assert str(flat[0][1]) == str(flat[1][1])
    for x, y in zip(flat[0][0], flat[1][0], strict=True):
        assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y


def assert_average_is_exported(run: Path) -> None:
    """Of a run or checkpoint whose average is another than its weights: that is taken, and its file says so."""
    folder = find_checkpoint(run)
    weights, file = load_file(folder / "model.safetensors"), folder / "ema.safetensors"
    save_file({name: each * 1.5 if each.is_floating_point() else each for name, each in weights.items()}, file)
    taken = open_exportable(run, ema=True)
    own, expected = taken.model.state_dict(), load_file(file)
    assert own.keys() == expected.keys() and all(torch.equal(own[name], each) for name, each in expected.items())
    said = {name: taken.words[name] for name in ("weights", "checkpoint", "step")}
    assert said == {
        "weights": "exponential moving average",
        "checkpoint": f"{run.name}, {folder.name}",
        "step": str(int(folder.name.removeprefix("step-"))),
    }
    file.unlink()


def in_graphs(monkeypatch: pytest.MonkeyPatch) -> TapeCapture:
    """Let runs with ``run.compile=graph`` have tapes for graphs; counts them."""
    capture = TapeCapture()
    monkeypatch.setattr(start, "open_capture", lambda accelerator: capture)
    return capture


def assert_graphs_change_nothing(
    train: Callable[..., Any], recipe: Any, capture: TapeCapture, stop: int, tolerance: float = 1e-3
) -> None:
    """A run in graphs ends as an eager one does; stopped at a step and resumed, it ends in the same bits."""
    folder, read = Path(recipe.run.output), type(recipe)
    runs = {name: read(**{**vars(recipe), "run": replace(recipe.run, output=str(folder / name))}) for name in "abc"}
    train(runs["a"])
    for name in "bc":
        runs[name].run.compile = "graph"
    train(runs["b"])
    assert capture.captures and capture.replays
    runs["c"].run.max_steps = stop
    train(runs["c"])
    torch.manual_seed(123)  # a new process has other generators
    runs["c"].run.max_steps = recipe.run.max_steps
    train(runs["c"], resume="auto")
    assert_same_state(last(runs["b"]), last(runs["c"]))
    assert rows(runs["b"]) == rows(runs["c"])
    for eager, graphed in zip(rows(runs["a"]), rows(runs["b"]), strict=True):
        assert {**graphed, "kind": 0} == pytest.approx({**eager, "kind": 0}, rel=tolerance)
    weights = [load_file(last(runs[name]) / "ema.safetensors") for name in "ab"]
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, atol=tolerance, rtol=tolerance)
    groups = [read_state(last(runs[name]) / "state.pt")["optimizer"]["param_groups"] for name in "ab"]
    assert [{**group, "lr": 0} for group in groups[0]] == [{**group, "lr": 0} for group in groups[1]]


def launch(module: str, recipe: Any, folder: Path, *flags: str) -> list[dict[str, Tensor]]:
    """Train by a command in two processes; gives the state of each one's task at the last checkpoint."""
    file = folder / "recipe.yaml"
    file.write_text(json.dumps(recipe.to_dict()))  # JSON is YAML
    return run(_by_command, module, ["--config", str(file), *flags])


def _by_command(rank: int, world: int, module: str, arguments: list[str]) -> dict[str, Tensor]:
    states: list[dict[str, Tensor]] = []
    save = TrainingSession.save

    def save_and_keep(self: TrainingSession) -> Path | None:
        states.append({name: value.clone() for name, value in self.task.state_dict().items()})
        return save(self)

    TrainingSession.save = save_and_keep  # type: ignore[method-assign]  # of this process alone, which ends with it
    assert importlib.import_module(module).main(arguments) == 0
    return states[-1]
