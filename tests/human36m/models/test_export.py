"""What an exported lifting model says of its numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cycledistill import export
from cycledistill.integrations.human36m import create_lifter, load_lifter_weights
from cycledistill.integrations.human36m.models.convention import MOTIONBERT
from cycledistill.recipes.weights.files import read_metadata

SMALL = {"frames": 9, "dim": 16, "depth": 1, "heads": 2, "in_channels": 3}
OTHER = replace(MOTIONBERT, frame_rate=25.0)


def check(words: dict[str, str]) -> None:
    said = {"unit": "picture", "root": "zero", "joints": "h36m", "coco": "midpoints", "normalisation": "width"}
    assert json.loads(words["convention"]) == said | {"frame_rate": 25, "confidence": True}
    assert (json.loads(words["frames"]), json.loads(words["mode"])) == (9, "seq2seq")


@pytest.mark.slow
def test_an_exported_program_carries_the_convention(tmp_path: Path) -> None:
    model = create_lifter("frame_lifter", **SMALL).eval()
    model.convention = OTHER
    exported = export(model, tmp_path / "lifter.pt2", torch.randn(1, 9, 17, 3))
    extra = {"metadata.json": ""}  # ONNX files hold the same words as metadata_props
    torch.export.load(exported.path, extra_files=extra)
    check(json.loads(extra["metadata.json"]))


def test_exported_weights_are_read_in_their_own_unit(tmp_path: Path) -> None:
    model = create_lifter("motionbert", dim_rep=16, **SMALL).eval()
    model.convention = OTHER
    path = export(model, tmp_path / "lifter.safetensors").path
    check(read_metadata(path))
    again = create_lifter("motionbert", dim_rep=16, **SMALL)
    load_lifter_weights(again, path)
    assert again.convention == OTHER
