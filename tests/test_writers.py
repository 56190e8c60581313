"""One way to write: files are whole or not there; a full disk, or a folder that takes no file, is said in words."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cycledistill.exporter import export
from cycledistill.integrations.human36m.draw import draw_sequences
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.run.logs import RunLog
from cycledistill.recipes.weights import write_weights
from cycledistill.recipes.weights.checkpoint import CheckpointStore, read_recipe
from tests.architecture import ROOT
from tests.spawn import alone

_METHODS = {"savefig", "imwrite", "write_text", "write_bytes", "savez", "savez_compressed", "savetxt"}
"""Methods and functions of modules that make a file, whoever's they are."""

_GIVEN = {"file", "folder", "new", "open_file", "buffer", "written"}
"""What the writers that `files.py` calls name the place that they are given, and what is no file."""

_ELSEWHERE = {
    "cycledistill/exporter/formats.py": "in the folder that atomic_files gives",
    "cycledistill/files.py": "the atomic writers themselves",
    "cycledistill/recipes/run/guard/lock.py": "a lock, which must not take another's place",
    "integrations/coco/data/synthetic.py": "a whole data set in a folder beside its place, renamed in the end",
    "benchmarks/on_gpu/supervise.py": "what runs now, for the process beside",
}


def direct_writes(tree: ast.AST) -> Iterator[int]:
    """Lines that write to a place that no atomic writer gave."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            writes = called in {"torch.save", "np.save", "save_file"} or called.rpartition(".")[2] in _METHODS
            names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
            if writes and called != "write_text" and not names & _GIVEN:  # ours of that name is atomic
                yield node.lineno


def test_files_are_written_by_the_atomic_writers_alone() -> None:
    found = [
        f"{path.relative_to(ROOT)}, line {line}"
        for folder in ("cycledistill", "integrations", "examples", "benchmarks", "docs")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not path.is_relative_to(ROOT / "cycledistill" / "integrations")
        and path.relative_to(ROOT).as_posix() not in _ELSEWHERE
        for line in direct_writes(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


def test_the_rule_sees_what_it_is_for() -> None:
    seen = "figure.savefig(path)\ncv2.imwrite('a.png', x)\ntorch.save(state, path)\np.write_text('a')"
    assert list(direct_writes(ast.parse(seen))) == [1, 2, 3, 4]
    fine = "atomic_write(path, lambda file: torch.save(state, file))\ndef write(folder): (folder / 'a').write_text('')"
    assert list(direct_writes(ast.parse(fine))) == []


def on_a_full_disk(folder: Path) -> list[str]:
    """What each writer says where no file may grow beyond 4 kB, in a process of its own."""
    import resource

    os.chdir(folder)
    model, image = torch.nn.Linear(100, 100).eval(), torch.randn(1, 100)
    Path("run").mkdir()
    log = RunLog(Path("run"))
    export(model, "first.pt2", image)  # what PyTorch keeps of its own is written by now
    draw_sequences({"a": np.zeros((5, 17, 3))}, "first.png")
    writes: dict[str, Callable[[], object]] = {
        "a.pth": lambda: write_weights(model.state_dict(), "a.pth"),
        "a.safetensors": lambda: write_weights(model.state_dict(), "a.safetensors"),
        "b.safetensors": lambda: export(model, "b.safetensors"),
        "b.pt2": lambda: export(model, "b.pt2", image),
        "a.png": lambda: draw_sequences({"a": np.zeros((5, 17, 3))}, "a.png"),
        "log": lambda: [log.write("train", step=step) for step in range(1000)],
        "checkpoint": lambda: CheckpointStore(Path("run")).save(1, {}, None, {"a": torch.zeros(9999)}, {}),
    }
    said = []
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    for name, write in writes.items():
        try:
            write()
        except Exception as refused:
            said.append(f"{name}: {type(refused).__name__}: {refused}".replace(chr(10), " "))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)  # for the answer
    return said


SAID = {
    "a.pth": r"OSError: .*is the disk full\?",
    "a.safetensors": r"OSError: .*is the disk full\?",
    "b.safetensors": r"ExportError: b.safetensors cannot be written: .*is the disk full\?",
    "b.pt2": r"ExportError: b.pt2 cannot be written: .*File too large",
    "a.png": r"OSError: .*File too large",
    "log": r"CheckpointError: the log cannot be written to run: .*File too large.*start again: no checkpoint was saved",
    "checkpoint": r"CheckpointError: the checkpoint of step 1 cannot be written to run: .*is the disk full\?",
}
"""What is written -> the error of a full disk."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is of POSIX")
def test_a_full_disk_is_said_and_leaves_what_was_there(tmp_path: Path) -> None:
    files = [name for name in SAID if "." in name]
    for name in files:
        (tmp_path / name).write_text("old")
    said = alone(on_a_full_disk, tmp_path)
    for name, says in SAID.items():
        assert any(re.match(f"{name}: {says}", line) for line in said), said
    assert {name: (tmp_path / name).read_text() for name in files} == dict.fromkeys(files, "old")
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([*files, "first.png", "first.pt2", "run"])
    assert sorted(each.name for each in (tmp_path / "run").iterdir()) == ["log.jsonl", "train.csv"]


def test_a_place_that_takes_no_file_is_said(tmp_path: Path) -> None:
    """A folder whose name is a file's takes none, whoever asks; permissions stop everybody but root."""
    (tmp_path / "file").touch()
    model = torch.nn.Linear(2, 2).eval()
    refused: dict[str, tuple[type[Exception], Callable[[Path], object]]] = {
        "a.pth": (CheckpointError, lambda path: write_weights(model.state_dict(), path)),
        "a.pt2": (ValueError, lambda path: export(model, path, torch.randn(1, 2))),
        "a": (CheckpointError, RunLog),
        "checkpoints": (CheckpointError, lambda path: CheckpointStore(path).save(1, {}, None, {}, {})),
    }
    for name, (error, write) in refused.items():
        with pytest.raises(error, match=f"{tmp_path / 'file'}"):
            write(tmp_path / "file" / name)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_recipe_that_json_cannot_hold_leaves_no_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "run", best_by=("metrics", "AP"))
    for value, says in (({1, 2}, "is a set"), ({(1, 2): 3}, "keys must be str"), (float, "is a type")):
        with pytest.raises(CheckpointError, match=rf"step 2 is not written: JSON cannot hold 'model' .*{says}"):
            store.save(2, {"a": torch.ones(1)}, None, {}, {"command": "toy", "model": {"options": value}})
    assert not (tmp_path / "run").exists()
    recipe = {"command": "toy", "recipe": {}, "metrics": {"AP": torch.tensor(0.5), "n": np.int64(3)}}
    assert read_recipe(store.save(1, {"a": torch.ones(1)}, None, {}, recipe))["metrics"] == {"AP": 0.5, "n": 3}
