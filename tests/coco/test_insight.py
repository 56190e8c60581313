"""The report on a pose model reads its checkpoint, its picture and its keypoint tokens."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cycledistill.insight.measures import attention_maps
from cycledistill.insight.report import insight_report
from cycledistill.integrations.coco import insight
from cycledistill.integrations.coco.data.images import PoseDataError
from cycledistill.integrations.coco.recipe import load_recipe
from cycledistill.integrations.coco.training.build import create_model
from cycledistill.recipes.errors import CheckpointError


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: Any) -> Any:
    """Opens a run of a small model, whose weights are fresh, with scores that a run would have recorded."""

    def opens(name: str, *options: str) -> Any:
        small = "model.options={image_size: [64, 48], depth: 2, dim: 24, heads: 2, patch_size: [4, 3]}"
        recipe = load_recipe("sdpose_s_v1", [f"model.name={name}", small, *options])
        torch.manual_seed(0)
        model = create_model(recipe).eval()
        folder = tmp_path / "run" / "checkpoints" / "step-1"
        exits = {"1": {"AP": 0.5, "images": 200}, "2": {"AP": 0.625, "AP_interval": [0.601, 0.648], "images": 200}}
        stored = {"step": 5, "command": "coco", "recipe": recipe.to_dict(), "metrics": {"exits": exits}}
        monkeypatch.setattr(insight, "find_checkpoint", lambda path: folder)
        monkeypatch.setattr(insight, "stored_recipe", lambda path: recipe)
        monkeypatch.setattr(insight, "load_trained", lambda path, ema: model)
        monkeypatch.setattr(insight, "read_recipe", lambda path: stored)
        return SimpleNamespace(found=insight.open_checkpoint(folder), model=model)

    return opens


@pytest.fixture
def subject(opened: Any) -> Any:
    return opened("sdpose_s_v1")


@pytest.mark.slow
def test_a_plain_model_with_a_large_backbone(opened: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "a.png"
    Image.fromarray(np.full((90, 60, 3), 200, np.uint8)).save(file)
    page = insight_report(opened("tokenpose_l_d6_plain", "cyclic.cycles=null").found, [file])
    assert "none, a plain model" in page and "Where the nose token looks" in page


@pytest.mark.slow
def test_keypoint_tokens_over_the_picture(subject: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "a.png"
    Image.fromarray(np.full((90, 60, 3), 200, np.uint8)).save(file)
    inputs, picture = subject.found.prepare(file)
    assert inputs.shape == (1, 3, 64, 48) and picture.shape == (64, 48, 3)
    assert float(picture[32, 24].mean()) == pytest.approx(200 / 255, abs=1e-3)
    maps = attention_maps(subject.model, inputs, rows=subject.found.rows)
    rows, columns = subject.found.grid
    assert [(m.cycle, m.layer) for m in maps] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert maps[0].weights.shape == (1, 2, 17, 17 + rows * columns)
    page = insight_report(subject.found, [file])
    for name in ("nose", "left wrist", "right knee", "right ankle"):
        assert f"Where the {name} token looks" in page
    assert dict(subject.found.scores.values) == {1: 0.5, 2: 0.625}
    assert "AP, by cycles at inference" in page and "<td>0.625 <small>(0.601 to 0.648)</small></td>" in page
    assert "on 200 pictures; interval: 95 %, bootstrap over pictures" in page
    with pytest.raises(PoseDataError, match="no such file"):
        subject.found.prepare(tmp_path / "no.png")


def test_a_damaged_run_is_told_from_one_of_another_integration(tmp_path: Path) -> None:
    recipe, file = load_recipe("sdpose_s_v1").to_dict(), tmp_path / "recipe.json"
    file.write_text(json.dumps({"command": "imagenet", "recipe": {"model": {"name": "test_vit"}}, "classes": []}))
    assert insight.open_checkpoint(tmp_path) is None
    for config, said in (
        (recipe | {"optim": {"lr": -1}}, "optim.lr"),
        (recipe | {"typo": 1}, "typo"),
        (recipe, "model.safetensors: there is no such file"),
    ):
        file.write_text(json.dumps({"command": "coco", "recipe": config, "network": {}}))
        with pytest.raises(CheckpointError, match=said):
            insight.open_checkpoint(tmp_path)
    file.write_text('{"recipe": {"prune"')
    with pytest.raises(CheckpointError, match="cut off"):
        insight.open_checkpoint(tmp_path)
