"""The report on a pose model reads its checkpoint, its picture and its keypoint tokens."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cycledistill.insight import attention_maps
from cycledistill.insight_report import insight_report
from cycledistill.integrations.coco import insight
from cycledistill.integrations.coco.build import create_model
from cycledistill.integrations.coco.images import PoseDataError
from cycledistill.integrations.coco.recipe import load_recipe


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: Any) -> Any:
    options = ["model.options={image_size: [64, 48], depth: 2, dim: 24, heads: 2, patch_size: [4, 3]}"]
    recipe = load_recipe("sdpose_s_v1", options)
    torch.manual_seed(0)
    model = create_model(recipe).eval()
    folder = tmp_path / "run" / "checkpoints" / "step-1"
    monkeypatch.setattr(insight, "find_checkpoint", lambda path: folder)
    monkeypatch.setattr(insight, "stored_recipe", lambda path: recipe)
    monkeypatch.setattr(insight, "load_trained", lambda path: model)
    monkeypatch.setattr(insight, "read_recipe", lambda path: {"step": 5})
    return SimpleNamespace(found=insight.open_checkpoint(folder), model=model)


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
        assert f"Attention of the {name} token" in page
    with pytest.raises(PoseDataError, match="no such file"):
        subject.found.prepare(tmp_path / "no.png")
