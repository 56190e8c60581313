"""``cycledistill report FILE``: what a file says of itself, and what is said of files that do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cycledistill import export, save_wrapping, wrap_cyclic
from cycledistill.commands.frame import main
from tests import toys

Lines = pytest.CaptureFixture[str]


def test_a_file_says_what_it_is(tmp_path: Path, capsys: Lines) -> None:
    path, out = tmp_path / "toy.safetensors", tmp_path / "report.json"
    export(wrap_cyclic(toys.make(), 3, "elt").eval(), path, metadata={"classes": '["cat", "dog"]'})
    assert main(["report", str(path), "--json", str(out)]) == 0
    said = capsys.readouterr().out
    for words in ("toy.safetensors: weights as safetensors", "ToyViT", "3 cycles, scheme elt", "2: cat, dog"):
        assert words in said
    assert "not said   input_size (height and width of its images); mean (" in said
    written = json.loads(out.read_text())
    assert written["says"]["classes"] == ["cat", "dog"] and written["missing"] == ["input_size", "mean", "std"]


def test_files_that_do_not_say_it(tmp_path: Path, capsys: Lines) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "bare.safetensors")
    whole = (tmp_path / "bare.safetensors").read_bytes()
    (tmp_path / "torn.safetensors").write_bytes(whole[:-1])
    (tmp_path / "wrapped").mkdir()
    model = wrap_cyclic(toys.make(), 3, "elt")
    save_file(model.state_dict(), tmp_path / "wrapped" / "model.safetensors")
    save_wrapping(model, tmp_path / "wrapped")
    assert main(["report", str(tmp_path / "wrapped" / "model.safetensors")]) == 0
    out = capsys.readouterr().out
    assert "model      ToyViT" in out and "3 cycles, scheme elt" in out and "not said   exit (" in out
    (tmp_path / "wrapped" / "cycledistill.json").write_text('{"cyclic": 3}')
    (tmp_path / "a.pth").touch()
    (tmp_path / "notes.txt").touch()
    for name, words in {
        "bare.safetensors": "does not say of which model it is. Missing are model, class, exit, cycles, distill, ",
        "torn.safetensors": "is torn, or not weights as safetensors",
        "wrapped/model.safetensors": "does not say of which model it is",
        "none.onnx": "there is no such file",
        "a.pth": "is none of the files that say what they are: .onnx, .pt2, .safetensors",
        "notes.txt": "is none of the files that say what they are",
    }.items():
        assert main(["report", str(tmp_path / name)]) == 2
        said = capsys.readouterr().err
        assert words in said and name in said
    assert main(["report", str(tmp_path / "bare.safetensors"), "--cycles", "3", "--time"]) == 2
    assert "--cycles, --time: a file says what it is" in capsys.readouterr().err
