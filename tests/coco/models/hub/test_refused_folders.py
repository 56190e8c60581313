"""Folders that are no published pose model: files missing, configs and weights that are wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

pytest.importorskip("huggingface_hub")

from cycledistill.integrations.coco import CheckpointError, TokenPose, TokenPoseConfig
from tests.coco.models.hub.published import SMALL, change, config_of


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_without_its_files(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(CheckpointError, match=rf"holds no {missing} \(it holds: .*save_pretrained"):
        TokenPose.from_pretrained(folder)
    with pytest.raises(CheckpointError, match="is a file: a folder with config.json and model.safetensors"):
        TokenPose.from_pretrained(folder / "README.md")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"library": "transformers"}, r"of no model of this library .*it holds: library"),
        ({"model_class": "MixSTE"}, "the model is a MixSTE, and TokenPose.from_pretrained reads: TokenPose"),
        ({"model_class": "os.system"}, "the model is a os.system"),
        ({"network": None}, "network=None: fields by name"),
        ({"network": {"dim": 32, "hidden": 3}}, r"unknown field 'network.hidden'.* Known: num_keypoints"),
        ({"network": {"dim": "wide"}}, "dim='wide': a whole number"),
        ({"network": {"image_size": [64]}}, "height and width"),
        ({"cycles": -1}, "cycles=-1"),
        ({"distill": "none"}, "distill='none': unknown preset"),
        ({"distill": {"token_wait": 1}}, "Did you mean 'token_weight'"),
        ({"prune_layers": [9]}, r"prune_layers=\(9,\): 9 is outside the 4 layers"),
        ({"prune_layers": 3}, "config.json: "),
        ({"network": {"scale": float("inf")}}, r"config\.json: network\.scale=inf: a finite number is expected"),
        ({"keep": 10**400}, r"config\.json: keep=a number of 1329 bits: a finite number is expected"),
        ({"keep": "half"}, "keep='half': a fraction"),
        ({"network": {"dim": 10**15, "heads": 1}}, r"config\.json: .*(memory|size)"),
        ({"network": {"num_keypoints": 10**15}}, r"config\.json: .*(memory|size)"),
        ({"layers": 3}, "unknown field 'layers'"),
        ({"name": 3}, "name=3, note='SDPose, CVPR 2024': words"),
    ],
)
def test_a_config_that_is_wrong(folder: Path, fields: dict[str, Any], reason: str) -> None:
    change(folder, **fields)
    with pytest.raises(CheckpointError, match=reason) as caught:
        TokenPose.from_pretrained(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(("text", "reason"), [("{", "cannot be read as JSON"), ("[1]", "holds a list, an object")])
def test_a_config_that_is_none(folder: Path, text: str, reason: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=reason):
        TokenPose.from_pretrained(folder)


def test_a_config_without_its_network(folder: Path) -> None:
    config = config_of(folder)
    del config["network"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="the field 'network' is missing; there are: cycles, distill"):
        TokenPose.from_pretrained(folder)


def test_weights_of_another_model_are_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["odd.weight"] = weights.pop("blocks.0.norm1.weight")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        TokenPose.from_pretrained(folder)
    for part in ("1 missing: blocks.0.norm1.weight", "1 unknown: odd.weight", "do not belong together"):
        assert part in str(caught.value)
    change(folder, network=dataclasses.asdict(TokenPoseConfig(**{**SMALL, "dim": 64})))
    with pytest.raises(
        CheckpointError, match=r"of another shape: keypoint_token \(1, 17, 32\), expected \(1, 17, 64\)"
    ):
        TokenPose.from_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="broken or truncated"):
        TokenPose.from_pretrained(folder)
