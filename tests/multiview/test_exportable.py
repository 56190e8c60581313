"""A multi-view model's run as a file, calibrated with a recording as its evaluation reads it."""

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
from cycledistill.integrations.multiview.data.samples import MultiViewSamples
from cycledistill.integrations.multiview.recipe import load_recipe
from cycledistill.integrations.multiview.train import train
from cycledistill.integrations.multiview.training.sources import open_set
from cycledistill.metadata.read import read_words
from tests.multiview.scenes import SMALL, some, write_recording
from tests.recipes.run_checks import assert_average_is_exported

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.mark.slow
def test_a_run_as_a_file(tmp_path: Path, capsys: Any) -> None:
    folder = write_recording(tmp_path / "take", some(4, cameras=3, size=64))
    recipe = load_recipe(
        {
            "model": {"options": SMALL},
            "cyclic": {"cycles": 2},
            "data": {
                "source": "folders", "train": str(folder), "test": str(folder), "unit": "mm", "batch_size": 2,
                "cameras": ["cam0", "cam1", "cam2"],
            },
            "schedule": {"epochs": 1, "milestones": []},
            "evaluate": {"every": 1, "head_size": 6.0},
            "run": {"output": str(tmp_path / "run"), "device": "cpu", "progress": False},
        }
    )  # fmt: skip
    train(recipe)
    assert_average_is_exported(Path(recipe.run.output))
    run = open_exportable(Path(recipe.run.output))
    (views,) = MultiViewSamples(open_set(recipe.data, "test"), run.model.config, recipe.data.padding).by_views(range(4))
    read = [sample() for sample in run.samples(folder)]
    for number, evaluated in enumerate(views[0][:3]):  # pixels, rays, centers
        prepared = torch.stack([torch.cat(column) for column in zip(*(each[number] for each in read), strict=True)])
        torch.testing.assert_close(prepared, evaluated, rtol=0, atol=0)

    file = tmp_path / "run.onnx"
    call = ["export", recipe.run.output, "--exit", "2", "--int8", "static", "--calibration-data", str(folder)]
    assert main([*call, "--output", str(file)]) == 0
    said = capsys.readouterr().out
    assert "3 views, exit 2" in said and "compared on the 4 calibration inputs" in said
    words = read_words(file)
    assert json.loads(words["joints"])[0] == "pelvis" and json.loads(words["input_size"]) == [32, 32]
    assert words["model"] == "multiview_ppt" and json.loads(words["mean"]) == [0.485, 0.456, 0.406]
