"""What tests of whole runs need: a recipe with changes, the last checkpoint, the log, and a comparison of states."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch.utils import _pytree as pytree

from cycledistill.recipes.weights.checkpoint import CheckpointStore, read_state

R = TypeVar("R")


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


_SCRIPT = """\
import importlib, sys, torch
from cycledistill.recipes.run.session import TrainingSession

folder, module, *arguments = sys.argv[1:]
save = TrainingSession.save

def save_and_tell(self, *args, **kwargs):
    torch.save(self.task.state_dict(), f"{folder}/rank-{self.accelerator.process_index}.pt")
    return save(self, *args, **kwargs)

TrainingSession.save = save_and_tell
sys.exit(importlib.import_module(module).main(arguments))
"""


def launch(module: str, recipe: Any, folder: Path, *flags: str) -> list[dict[str, torch.Tensor]]:
    """Train by a command in two processes; gives the state of each one's task at the last checkpoint."""
    script, file = folder / "script.py", folder / "recipe.yaml"
    script.write_text(_SCRIPT)
    file.write_text(json.dumps(recipe.to_dict()))  # JSON is YAML
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, str(script), str(folder), module, "--config", str(file), *flags]
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]
