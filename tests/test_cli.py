"""The command line: what it prints for good input, and what it says to bad input."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from cycledistill import Verification
from cycledistill.commands import frame as cli
from cycledistill.verification import Row
from tests.scripts import run_module

pytest.importorskip("timm")
Lines = pytest.CaptureFixture[str]


def numbers(text: str, row: str) -> list[float]:
    line = next(line for line in text.splitlines() if line.startswith(row))
    return [float(cell) for cell in line.removeprefix(row).split()]


@pytest.mark.slow
def test_report_of_deit_tiny(capsys: Lines, tmp_path: Path) -> None:
    file = tmp_path / "cost.json"
    assert cli.main(["report", "deit_tiny_patch16_224", "--cycles", "3", "--json", str(file)]) == 0
    text = capsys.readouterr().out
    assert "5,717,416" in text
    assert [numbers(text, row)[0] for row in ("eval, 1 cycle ", "eval, 2 cycles", "eval, 3 cycles")] == [
        pytest.approx(value, abs=5e-3) for value in (1.25, 2.48, 3.70)
    ]
    record = json.loads(file.read_text())
    assert record["name"] == "deit_tiny_patch16_224"
    assert record["parameters"] == 5_717_416
    assert len(record["exits"]) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["cost.json"]


@pytest.mark.slow
def test_report_times_on_request(capsys: Lines) -> None:
    assert cli.main(["report", "test_vit", "--img-size", "32", "--time", "--repeats", "1"]) == 0
    text = capsys.readouterr().out
    assert "input 1 x 3 x 32 x 32" in text
    assert numbers(text.replace("x\n", "\n"), "eval, 2 cycles")[0] > 0
    assert "training step, 2 cycles" in text


@pytest.mark.slow
def test_report_of_a_stage_by_path(capsys: Lines) -> None:
    assert cli.main(["report", "swin_tiny_patch4_window7_224", "--blocks", "layers.2.blocks"]) == 0
    assert "layers.2.blocks: 6 x SwinTransformerBlock" in capsys.readouterr().out


@pytest.mark.slow
def test_image_sizes_of_models_that_are_not_built_for_one(capsys: Lines) -> None:
    assert cli.main(["report", "levit_128s", "--blocks", "stages.2.blocks", "--img-size", "256"]) == 0
    assert "input 1 x 3 x 256 x 256" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "library", "path"),
    [("torchvision:vit_b_16", "torchvision", "encoder.layers"), ("hf:vit", "transformers", "vit.layers")],
)
def test_other_sources(capsys: Lines, name: str, library: str, path: str) -> None:
    pytest.importorskip(library)
    assert cli.main(["report", name]) == 0
    assert f"{path}: 12 x" in capsys.readouterr().out


def test_a_folder_with_a_hugging_face_configuration(capsys: Lines, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    transformers.ViTConfig(**small, image_size=32, patch_size=8).save_pretrained(tmp_path)
    assert cli.main(["report", f"hf:{tmp_path}"]) == 0
    text = capsys.readouterr().out
    assert "vit.layers: 3 x" in text
    assert "pixel_values 1 x 3 x 32 x 32" in text


def test_stacks_lists_candidates_and_the_call(capsys: Lines) -> None:
    assert cli.main(["stacks", "swin_tiny_patch4_window7_224"]) == 0
    text = capsys.readouterr().out
    rows = [line.split() for line in text.splitlines() if line.startswith("layers.")]
    assert {row[0]: int(row[1]) for row in rows} == {f"layers.{i}.blocks": d for i, d in enumerate((2, 2, 6, 2))}
    assert 'wrap_cyclic(model, blocks="layers.3.blocks")' in text

    assert cli.main(["stacks", "test_vit"]) == 0
    assert "wrap_cyclic(model) takes blocks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "deit_tini_patch16_224"], "deit_tiny_patch16_224"),
        (["report", "torchvision:vit_b_61"], "vit_b_16"),
        (["report", "hf:vitt"], "vit"),
        (["report", "test_vit", "--cycles", "0"], "--cycles 0"),
        (["report", "test_vit", "--repeats", "0"], "--repeats 0"),
        (["report", "test_vit", "--img-size", "-8"], "--img-size -8"),
        (["report", "resnet18"], "no attention stack"),
        (["report", "vgg11"], "no stack"),
        (["report", "swin_tiny_patch4_window7_224"], 'blocks="layers.3.blocks"'),
        (["report", "test_vit", "--blocks", "blcks"], "'blocks'"),
        (["report", "test_vit", "--json", "no/such/folder/x.json"], "no folder"),
        (["report", "torchvision:resnet18", "--img-size", "64"], "cannot be built with --img-size 64"),
        (["stacks", "vgg11"], "no run of equal blocks"),
    ],
)
def test_bad_input_is_explained(capsys: Lines, arguments: list[str], said: str) -> None:
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("cycledistill: ")
    assert said in err


@pytest.mark.parametrize("command", [("report", "test_vit", "--json"), ("insight", "no_such_run", "--output")])
def test_where_to_write_is_checked_before_the_work(
    capsys: Lines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: tuple[str, ...]
) -> None:
    def work(*_: object) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr("cycledistill.commands.named.models.build", work)
    monkeypatch.setattr("cycledistill.insight.subject.open_subject", work)
    monkeypatch.chdir(tmp_path)
    targets = {".": "is a folder", "no/such.html": "no folder no", "x" * 300: "cannot be written"}
    if os.name == "posix" and os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        targets["closed/a.html"] = "cannot be written"
    for target, said in targets.items():
        assert cli.main([*command, target]) == 2
        err = capsys.readouterr().err
        assert said in err and command[-1] in err and err.count("\n") == 1
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("arguments", [[], ["report"], ["report", "test_vit", "--cycles", "two"], ["raport", "x"]])
def test_a_wrong_call_shows_the_usage(capsys: Lines, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "usage: cycledistill" in capsys.readouterr().err


def test_a_missing_library_is_named(capsys: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert cli.main(["report", "test_vit"]) == 2
    assert "pip install timm" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("model", "code"), [("test_vit", 0), ("no_such_model", 2)])
def test_the_module_runs_as_a_program(model: str, code: int) -> None:
    run = run_module("cycledistill", "stacks", model)
    assert run.returncode == code
    assert "Traceback" not in run.stderr
    assert bool(run.stdout) is (code == 0)


@pytest.mark.parametrize(("result", "code"), [("ok", 0), ("FAILED", 1), ("not checked", 1)])
def test_verify_prints_a_table_and_ends_by_it(
    capsys: Lines, monkeypatch: pytest.MonkeyPatch, result: str, code: int
) -> None:
    seen: list[Any] = []

    def answer(model: Any, inputs: Any) -> Verification:
        seen.append((repr(model.cyclic), inputs))
        return Verification("it", (Row("a claim", "an oracle", result, "why"),))

    monkeypatch.setattr("cycledistill.verification.proof.verify", answer)
    assert cli.main(["verify", "test_vit", "--img-size", "32", "--cycles", "3", "--blocks", "blocks[1:4]"]) == code
    assert f"a claim  an oracle  {result}: why" in capsys.readouterr().out
    assert seen == [("Cyclic(blocks[1:4] x3, cycles=3, exit=1)", None)]
    assert cli.main(["verify", "test_vit", "--cycles", "0"]) == 2
    assert "--cycles 0: a whole number of at least 1 is expected" in capsys.readouterr().err


def test_a_path_where_a_name_belongs_is_no_mistyped_name(
    tmp_path: Path, capsys: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "w.pth").touch()
    for command in ("report", "stacks", "verify"):
        file = "none of the files that say what they are" if command == "report" else "a file, and this command builds"
        for given, said in (
            ("runs", "runs is a folder, and this command builds a model by its name: a timm name, torchvision:NAME"),
            ("w.pth", f"w.pth is {file}"),
            ("runs/lift", "there is no such file or folder as runs/lift, nor is it the name of a model"),
            ("vit_tinny", "'vit_tinny' is no timm model"),
        ):
            assert cli.main([command, given]) == 2
            assert capsys.readouterr().err.startswith(f"cycledistill: {said}")
