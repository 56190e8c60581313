"""What lies beside a model's weights speaks of those alone: not of other files, nor of what is saved there later."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cycledistill import rewrap, save_wrapping, unwrap_cyclic, wrap_cyclic
from cycledistill.metadata.read import MetadataError
from cycledistill.metadata.told import report_file
from cycledistill.plugin.plain import SAVED
from cycledistill.plugin.saved import weights_kept
from tests import toys
from tests.commands.test_export_weights import exported, trained


def spoken(file: Path) -> bool:
    try:
        words = report_file(file).words
    except MetadataError:
        return False
    assert (words["cycles"], json.loads(words["distill"])) == ("3", "elt")
    return True


def test_only_files_that_hold_the_models_weights_are_spoken_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, own, other = wrap_cyclic(toys.make(), 3, "elt"), tmp_path / "own.safetensors", tmp_path / "other.safetensors"
    state = model.state_dict()
    names = {f"model.{name}": each for name, each in state.items()}  # as libraries rename them
    save_file(names, own)
    save_file({name: each + (number == 3) for number, (name, each) in enumerate(state.items())}, other)
    (tmp_path / "torn.safetensors").write_bytes(own.read_bytes()[:-1])
    save_wrapping(model, tmp_path)
    save_file({"x": torch.zeros(3)}, tmp_path / "later.safetensors")
    assert {file.stem: spoken(file) for file in tmp_path.glob("[ol]*.safetensors")} == (
        {"own": True, "other": False, "later": False}
    )
    assert weights_kept(tmp_path) is True and rewrap(toys.make(), tmp_path).cyclic.cycles == 3 and not caplog.records
    with torch.no_grad():
        next(model.parameters()).add_(1)
    save_file(model.state_dict(), own)
    assert weights_kept(tmp_path) is False and not spoken(own)
    with caplog.at_level(logging.WARNING):
        rewrap(toys.make(), tmp_path)
    assert "was written for other weights than those that lie there now" in caplog.text


def test_where_no_weights_are_none_are_spoken_for(tmp_path: Path) -> None:
    model = wrap_cyclic(toys.make(), 3, "elt")
    save_wrapping(model, tmp_path)
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    assert weights_kept(tmp_path) is None and not spoken(tmp_path / "own.safetensors")
    save_wrapping(model, tmp_path)
    assert weights_kept(tmp_path) is True and spoken(tmp_path / "own.safetensors")
    found = json.loads((tmp_path / SAVED).read_text())
    (tmp_path / SAVED).write_text(json.dumps(found | {"weights": ["own.safetensors"]}))
    assert weights_kept(tmp_path) is None and not spoken(tmp_path / "own.safetensors")


@pytest.mark.slow
def test_a_model_of_transformers_that_is_saved_unwrapped_later_is_not_spoken_for(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    model = trained(folder)
    assert spoken(folder / "model.safetensors")
    save_file({"x": torch.zeros(3)}, folder / "other.safetensors")
    model.save_pretrained(folder)  # type: ignore[operator]
    assert spoken(folder / "model.safetensors") and not spoken(folder / "other.safetensors")
    unwrap_cyclic(model)
    with torch.no_grad():
        model.classifier.bias.add_(1)  # type: ignore[union-attr, operator]
    model.save_pretrained(folder)  # type: ignore[operator]
    assert not spoken(folder / "model.safetensors")
    words = exported(folder, tmp_path / "a.safetensors", "--exit", "2")
    assert (words["cycles"], words["distill"]) == ("1", "null")
