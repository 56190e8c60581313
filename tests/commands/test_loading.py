"""Before anything slow is imported, a command says that it is being."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cycledistill.terminal.loading import say_loading

LINE = "loading PyTorch and what else is needed"
PROGRAM = """
import contextlib, importlib.abc, io, json, sys

class No(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

sys.meta_path.insert(0, No())
from cycledistill.commands.frame import main
from cycledistill.terminal.loading import say_loading

said = {}
for call in sys.argv[1:]:
    say_loading.cache_clear()
    with contextlib.redirect_stderr(io.StringIO()) as stderr, contextlib.suppress(SystemExit):
        main(call.split())
    said[call] = stderr.getvalue().splitlines()
print(json.dumps(said))
"""
CALLS = [
    "report x",
    "stacks x",
    "verify x",
    "insight x --image FILE",
    "export x",
    "train coco",
    "evaluate imagenet x",
    "evaluate FILE",
    "evaluate someone/model",
    "predict FILE x",
    "predict coco x x --output o",
    "predict human36m x x --output o.npz",
    "predict multiview x a=x --calibration c --output o.npz",
    "predict triangulate a=x --calibration c --output o.npz",
    "convert coco x y.pth --model m",
]


@pytest.mark.slow
def test_it_is_said_before_torch_is_imported(tmp_path: Path) -> None:
    """Without PyTorch, all that a command does before it imports it is there to be seen."""
    (tmp_path / "file").write_text("")
    calls = [call.replace("FILE", str(tmp_path / "file")) for call in CALLS]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *calls], capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert [lines[0] for lines in said.values()] == [LINE] * len(calls)
    assert all("needs torch, which is not installed" in lines[1] for lines in said.values())


@pytest.mark.parametrize(("rank", "times"), [("0", 1), ("1", 0)])
def test_it_is_said_once_by_the_first_process(
    rank: str, times: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.delitem(sys.modules, "torch")
    say_loading.cache_clear()
    for _ in range(2):
        say_loading()
    assert capsys.readouterr().err == f"{LINE}\n" * times


def test_what_is_there_is_not_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    import torch  # noqa: F401

    say_loading.cache_clear()
    say_loading()
    assert not capsys.readouterr().err
