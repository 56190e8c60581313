"""A lifting model's run as a file, calibrated with keypoint files in windows as its evaluation cuts them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("accelerate")
pytest.importorskip("onnxscript")

from cycledistill.commands.frame import main
from cycledistill.exporter.exportable import open_exportable
from cycledistill.integrations.human36m.data.cameras import screen_to_pixels
from cycledistill.integrations.human36m.data.dataset import LiftWindows
from cycledistill.integrations.human36m.recipe import load_recipe
from cycledistill.integrations.human36m.train import train
from cycledistill.integrations.human36m.trained import load_trained
from cycledistill.integrations.human36m.training.sources import open_clips
from cycledistill.metadata.read import read_words
from cycledistill.recipes.commands.held import command_of
from tests.recipes.run_checks import assert_average_is_exported

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["sequence", "centre"])
def test_a_run_as_a_file(mode: str, tmp_path: Path, capsys: Any) -> None:
    recipe = load_recipe(
        {
            "model": {"name": "mixste", "options": {"dim": 16, "depth": 2, "heads": 2}},
            "cyclic": {"cycles": 2},
            "data": {"source": "generated", "sequences": 2, "length": 12, "views": 1, "frames": 9, "batch_size": 4},
            "schedule": {"epochs": 1, "warmup_steps": 0},
            "evaluate": {"every": 1, "exits": [1], "mode": mode},
            "run": {"output": str(tmp_path / "run"), "device": "cpu", "progress": False},
        }
    )
    train(recipe)
    assert_average_is_exported(Path(recipe.run.output))
    (clips,) = open_clips(recipe.data, ("test",))
    files = tmp_path / "keypoints"
    files.mkdir()
    for number, clip in enumerate(clips):
        width, height = clip.camera.size
        pixels = screen_to_pixels(clip.inputs, width, height).tolist()
        file = files / f"{number:02d}.json"
        file.write_text(
            json.dumps({"keypoints": pixels, "layout": "h36m", "width": width, "height": height, "fps": 50})
        )
    windows = LiftWindows(clips, 9, centred=mode == "centre")
    evaluated = windows.__getitems__(range(len(windows)))["inputs"]
    run = open_exportable(Path(recipe.run.output))
    prepared = torch.cat([sample()[0] for sample in run.samples(files)])
    torch.testing.assert_close(prepared, evaluated, rtol=0, atol=1e-5)

    weights = tmp_path / "run.safetensors"
    assert main(["export", recipe.run.output, "--exit", "2", "--output", str(weights)]) == 0
    capsys.readouterr()
    assert command_of(str(weights)) == "human36m"
    again, own = load_trained(weights), load_trained(recipe.run.output)  # the file says how its model is built
    assert again.cyclic.cycles == 2 and torch.equal(again(evaluated[:1]), own(evaluated[:1]))

    if mode == "centre":  # the file is made in the same way
        return
    file = tmp_path / "run.onnx"
    call = ["export", recipe.run.output, "--exit", "2", "--int8", "static", "--calibration-data", str(files)]
    assert main([*call, "--limit", "8", "--output", str(file)]) == 0
    assert f"compared on the {min(len(windows), 8)} calibration inputs" in capsys.readouterr().out
    words = read_words(file)
    assert json.loads(words["frames"]) == 9 and json.loads(words["convention"])["joints"] == "h36m"
    assert main([*call[:-1], str(tmp_path / "run"), "--output", str(file)]) == 2  # no keypoints are in it
    assert "keypoints" in capsys.readouterr().err
