"""The pose converter on containers as the authors' trainers write them, on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cycledistill.commands.frame import main
from cycledistill.integrations.coco import pose_model_config
from cycledistill.integrations.coco.weights.key_map import to_official
from cycledistill.recipes.weights.files import read_weights
from tests.coco.test_convert import FILES, state_of
from tests.trainers import TRAINERS

WRITERS = {"sdpose": "mmcv", "sdpose-tokenpose": "mmcv", "distilpose": "mmcv", "tokenpose-s": "hrnet", "ppt-s": "hrnet"}


@pytest.mark.slow
@pytest.mark.parametrize("layout", WRITERS)
def test_pose_models(layout: str, tmp_path: Path) -> None:
    name = FILES[layout][0]
    config = pose_model_config(name).network
    state = state_of(config)
    TRAINERS[WRITERS[layout]](to_official(state, config, layout), tmp_path / "theirs.pth")
    assert (
        main(["convert", "coco", str(tmp_path / "theirs.pth"), str(tmp_path / "ours.safetensors"), f"--model={name}"])
        == 0
    )
    found = read_weights(tmp_path / "ours.safetensors")
    assert found.keys() == state.keys() and all(torch.equal(found[key], state[key]) for key in state)
