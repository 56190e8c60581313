"""A classifier's run as a file: its own classes and numbers in it, calibrated with what its evaluation sees."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("timm")
pytest.importorskip("accelerate")
pytest.importorskip("onnxscript")

from cycledistill.commands.calibration import pictures_by
from cycledistill.commands.frame import main
from cycledistill.exporter.exportable import open_exportable
from cycledistill.integrations.imagenet.data.splits import open_validation
from cycledistill.integrations.imagenet.recipe import Recipe, load_recipe
from cycledistill.integrations.imagenet.train import train
from cycledistill.integrations.imagenet.trained import stored_recipe
from cycledistill.integrations.imagenet.training.build import validation_batches
from cycledistill.metadata.read import read_words

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.mark.slow
def test_a_run_as_a_file(folder_dir: Path, tmp_path: Path, capsys: Any) -> None:
    own = {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7], "crop_pct": 0.75, "mixup": 0, "cutmix": 0}
    recipe = load_recipe(
        {
            "model": {"name": "test_vit", "img_size": 16, "kwargs": {"patch_size": 8, "depth": 2}},
            "cyclic": {"cycles": 2},
            "data": {"dir": str(folder_dir), "batch_size": 16},
            "augment": own,
            "schedule": {"epochs": 1, "warmup_epochs": 0},
            "evaluate": {"exits": [1]},
            "run": {"output": str(tmp_path / "run"), "device": "cpu", "progress": False},
        }
    )
    train(recipe)
    _refused(recipe.run.output, tmp_path, capsys)
    file, photos = tmp_path / "run.onnx", folder_dir / "val"
    call = ["export", recipe.run.output, "--exit", "2", "--int8", "static", "--calibration-data", str(photos)]
    assert main([*call, "--output", str(file)]) == 0
    assert "compared on the 10 calibration inputs" in capsys.readouterr().out
    words = read_words(file)
    assert {name: json.loads(words[name]) for name in ("mean", "std", "crop_pct")} == {
        name: own[name] for name in ("mean", "std", "crop_pct")
    }
    assert json.loads(words["classes"]) == ["dark", "pale"] and json.loads(words["input_size"]) == [16, 16]
    assert json.loads(words["interpolation"]) == "bicubic" and words["exit"] == "2"

    run = open_exportable(Path(recipe.run.output))
    images, _ = open_validation(recipe.data)
    device = SimpleNamespace(device=torch.device("cpu"), num_processes=1)
    evaluated = torch.cat([batch for batch, _ in validation_batches(recipe, images, run.model, device)])
    assert len(evaluated) == 10 and evaluated.min() < -0.5
    for samples in (run.samples(photos), pictures_by(words, "run.onnx")(photos)):
        prepared = torch.cat([sample()[0] for sample in samples])
        torch.testing.assert_close(prepared, evaluated, rtol=0, atol=1e-5)


def _refused(run: str, folder: Path, capsys: Any) -> None:
    """What a run cannot follow is told before anything is exported."""
    (folder / "empty").mkdir()
    for words, said in (
        (["--img-size", "32"], "has the size it was trained on"),
        (["--blocks", "blocks"], "exit 1 is the plain model's"),
        (["--exit", "2", "--blocks", "blocks"], "is wrapped, and has the stack it has"),
        (["--int8", "--calibration-data", str(folder / "empty")], "no picture is in it"),
    ):
        assert main(["export", run, "--output", str(folder / "a.onnx"), *words]) == 2
        told = capsys.readouterr()
        assert said in told.err and told.out == ""


@pytest.mark.slow
def test_a_file_says_of_which_weights_it_is(tiny: Recipe, tmp_path: Path, capsys: Any) -> None:
    """Of the last checkpoint or another, the weights or their average."""
    run = Path(tiny.run.output)
    train(replace(tiny, run=replace(tiny.run, max_steps=1)))
    train(replace(tiny, run=replace(tiny.run, max_steps=2)), resume="auto")
    first, second = sorted((run / "checkpoints").iterdir())
    for source, kind, flags, name in (
        (run, "as trained", (), "model"),
        (run, "exponential moving average", ("--ema",), "ema"),
        (first, "as trained", (), "model"),
    ):
        file, folder = tmp_path / "out.safetensors", first if source == first else second
        assert main(["export", str(source), *flags, "--output", str(file)]) == 0
        said = capsys.readouterr().out
        assert f"run, {folder.name}, {'average of the weights' if flags else 'weights as trained'}, exit 1" in said
        other = first if folder == second else second
        assert f"other checkpoints of the run: {other}; export one by its folder" in said
        words, own = read_words(file), load_file(folder / f"{name}.safetensors")
        assert (words["weights"], words["step"]) == (kind, str(int(folder.name[5:])))
        assert words["checkpoint"] == f"run, {folder.name}"
        assert {key: read_words(folder / f"{name}.safetensors")[key] for key in ("weights", "step")} == {
            key: words[key] for key in ("weights", "step")
        }
        written = load_file(file)
        assert written.keys() == own.keys() and all(torch.equal(written[key], own[key]) for key in own)
        assert stored_recipe(file).model.kwargs == tiny.model.kwargs  # it says how its model is built
    (second / "ema.safetensors").unlink()
    assert main(["export", str(run), "--ema", "--output", str(tmp_path / "none.onnx")]) == 2
    assert "holds no average of the weights: leave out --ema" in capsys.readouterr().err
