"""``cycledistill export`` of names and folders: whose weights a file holds, and what it says of their training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cycledistill import wrap_cyclic
from cycledistill.commands.export_source import _wrapped
from cycledistill.commands.frame import main
from cycledistill.metadata.model import with_words, words_of
from cycledistill.metadata.read import read_words
from cycledistill.metadata.shape import missing
from cycledistill.metadata.told import FileReport
from tests import toys

Lines = pytest.CaptureFixture[str]


def trained(folder: Path, kind: str = "ViTForImageClassification", scheme: Any = "elt") -> nn.Module:
    """A wrapped model of transformers, saved as its users save it."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=16, patch_size=8, num_hidden_layers=2, num_attention_heads=2, hidden_size=16, intermediate_size=16,
        id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1},
    )  # fmt: skip
    model: nn.Module = getattr(transformers, kind)(config)
    if scheme is not None:
        wrap_cyclic(model, 3, scheme)
    model.save_pretrained(folder)  # type: ignore[operator]
    return model.eval()


def exported(folder: Path, target: Path, *options: str) -> dict[str, str]:
    assert main(["export", f"hf:{folder}", "--output", str(target), *options]) == 0
    return read_words(target)


def mine(out: object) -> torch.Tensor:
    raise AssertionError


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ViTForImageClassification", "ViTModel"])
def test_a_folder_is_exported_with_its_weights_and_its_training(tmp_path: Path, kind: str, capsys: Lines) -> None:
    model, file = trained(tmp_path / "saved", kind), tmp_path / "a.safetensors"
    words = exported(tmp_path / "saved", file, "--exit", "2")
    assert "with its weights, exit 2" in capsys.readouterr().out
    own, found = model.state_dict(), load_file(file)
    assert found.keys() == own.keys() and all(torch.equal(found[name], each) for name, each in own.items())
    assert (words["class"], words["cycles"], words["distill"], words["exit"]) == (kind, "3", '"elt"', "2")
    assert "weights" not in words


@pytest.mark.slow
def test_a_plain_folder_says_no_cycles_of_an_exit_and_a_function_is_named(tmp_path: Path, capsys: Lines) -> None:
    trained(tmp_path / "plain", scheme=None)
    words = exported(tmp_path / "plain", tmp_path / "a.safetensors", "--exit", "3")
    assert (words["cycles"], words["distill"], words["exit"]) == ("1", "null", "3")
    trained(tmp_path / "code", scheme=mine)
    words = exported(tmp_path / "code", tmp_path / "a.safetensors")
    assert (words["cycles"], json.loads(words["distill"])) == ("3", {"code": "mine"})
    call = ["export", f"hf:{tmp_path / 'code'}", "--output", str(tmp_path / "b.safetensors"), "--exit", "2"]
    assert main([*call, "--blocks", "elsewhere"]) == 2
    assert "--blocks elsewhere: the model of hf:" in capsys.readouterr().err


@pytest.mark.slow
def test_weights_that_are_not_the_models_are_refused(tmp_path: Path, capsys: Lines) -> None:
    folder, out = tmp_path / "saved", tmp_path / "a.safetensors"
    trained(folder)
    file = folder / "model.safetensors"
    state = load_file(file)

    def refused(*options: str) -> str:
        assert main(["export", f"hf:{folder}", "--output", str(out), *options]) == 2 and not out.exists()
        return capsys.readouterr().err

    assert "no ViTForImageClassification can be loaded from it with --img-size 32" in refused("--img-size", "32")
    save_file({name: each for name, each in state.items() if "classifier" not in name}, file, {"format": "pt"})
    assert "lacks 2 of the weights of its ViTForImageClassification" in refused()
    file.write_bytes(file.read_bytes()[:-1])
    assert "no ViTForImageClassification can be loaded from it: " in refused()
    file.unlink()
    torch.save(state, folder / "pytorch_model.bin")  # pickles are not read
    assert "with random weights is hf:vit" in refused()
    config = json.loads((folder / "config.json").read_text())
    for name in ("Popen", "ViTConfig", "DeiTModel"):  # nothing of transformers, no model, a model of another config
        (folder / "config.json").write_text(json.dumps(config | {"architectures": [name]}))
        assert f"names no class of transformers (architectures=['{name}'])" in refused()


@pytest.mark.slow
def test_a_name_says_that_its_weights_are_random_and_tells_no_training(tmp_path: Path, capsys: Lines) -> None:
    pytest.importorskip("timm")
    file = tmp_path / "a.safetensors"
    assert main(["export", "test_vit", "--exit", "3", "--output", str(file)]) == 0
    words = read_words(file)
    assert words["weights"] == "random" and words["exit"] == "3" and not words.keys() & {"cycles", "distill"}
    capsys.readouterr()
    assert main(["report", str(file)]) == 0
    said = capsys.readouterr().out
    assert "weights    random, as the model is made: nothing was trained" in said
    assert "training " not in said and "cycles" not in said


def test_an_exit_is_no_training() -> None:
    words = words_of(_wrapped(toys.make(), 3, "auto", None), 3)
    assert (words["cycles"], words["distill"], words["exit"]) == ("1", "null", "3")


def test_random_weights_are_told() -> None:
    words = with_words(words_of(wrap_cyclic(toys.make(), 3, "elt"), 2), {"weights": "random"})
    assert words["weights"] == "random" and not words.keys() & {"cycles", "distill"}
    assert not {"cycles", "distill"} & {*missing(words)}
    assert {"cycles", "distill"} <= {*missing({**words, "weights": "as trained"})}
    told = str(FileReport(Path("a.onnx"), 1, words, ()))
    assert "nothing was trained" in told and "cycles" not in told


@pytest.mark.parametrize("name", ["hf-hub:timm/test_vit", "local-dir:saved"])
def test_names_of_timm_that_mean_weights_are_not_given_random_ones(name: str, tmp_path: Path, capsys: Lines) -> None:
    pytest.importorskip("timm")
    assert main(["export", name, "--output", str(tmp_path / "a.onnx")]) == 2
    assert f"this one has its own. In Python they are loaded: cycledistill.export(timm.create_model({name!r}, pre" in (
        capsys.readouterr().err
    )
