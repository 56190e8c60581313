"""What models say of themselves for their files."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cycledistill import Distill, wrap_cyclic
from cycledistill.metadata.classes import classes_of
from cycledistill.metadata.model import tell, with_words, words_of
from cycledistill.metadata.shape import KEYS, missing, name_in
from cycledistill.metadata.told import FileReport
from tests import toys

IMAGES = ((torch.zeros(2, 3, 48, 32),), {})


def test_a_plain_model_is_of_one_cycle() -> None:
    words = words_of(toys.make(), 1, ((torch.zeros(2, 4, 6),), {}))
    assert set(words) == {"model", "class", "exit", "cycles", "distill", "versions"}
    assert [words[name] for name in ("model", "class", "exit", "cycles", "distill")] == (
        ["ToyViT", "ToyViT", "1", "1", "null"]
    )
    assert set(json.loads(words["versions"])) == {"cycledistill", "torch"}
    assert missing(words) == ["input_size", "mean", "std", "classes"] and name_in(words) is None


def test_cycles_and_schemes() -> None:
    def scheme(given: object) -> object:
        model = wrap_cyclic(toys.make(), 3, given)  # type: ignore[arg-type]
        words = words_of(model, 2, IMAGES)
        assert (words["exit"], words["cycles"]) == ("2", "3")
        return json.loads(words["distill"])

    def mine(out: object) -> torch.Tensor:
        return torch.zeros(())

    assert scheme(None) is None
    assert scheme("elt") == "elt"
    assert scheme(Distill(token_weight=0.5)) == {"token_weight": 0.5}
    assert scheme(mine) == {"code": "mine"}
    assert scheme(Distill(token_weight=0.5, token_loss=mine)) == {"token_weight": 0.5, "token_loss": {"code": "mine"}}


def test_pixels_and_classes() -> None:
    model = nn.Linear(4, 2)
    model.pretrained_cfg = {"architecture": "vit_s", "mean": (0.1, 0.2, 0.3), "std": (1, 1, 1)}  # type: ignore[assignment]
    model.config = SimpleNamespace(id2label={1: "dog", 0: "cat"})  # type: ignore[assignment]
    words = words_of(model, 1, IMAGES)
    assert (words["model"], words["class"], name_in(words)) == ("vit_s", "Linear", "vit_s")
    assert missing(words) == [] and set(words) == {*KEYS, "assumed"}
    told = {name: json.loads(words[name]) for name in ("input_size", "mean", "std", "classes")}
    assert told == {"input_size": [48, 32], "mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "classes": ["cat", "dog"]}


def test_weights_say_the_size_that_the_model_declares_and_the_labels_of_timm() -> None:
    model = nn.Linear(4, 2)
    model.pretrained_cfg = {"input_size": (3, 64, 48), "label_names": ("cat", "dog"), "mean": "odd"}  # type: ignore[assignment]
    words = words_of(model)
    assert (json.loads(words["input_size"]), json.loads(words["classes"])) == ([64, 48], ["cat", "dog"])
    assert "mean" not in words and missing(words) == ["mean", "std"]


def patches(channels: int, classes: int) -> nn.Module:
    """An image model that declares its size by itself, with timm's defaults for another one."""
    model = nn.Sequential(nn.Conv2d(channels, 4, 2), nn.Flatten(), nn.Linear(4, classes))
    model.pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (1, 1, 1), "crop_pct": 0.9, "input_size": (3, 64, 64)}  # type: ignore[assignment]
    return model


def test_defaults_of_a_name_are_called_that_until_they_are_told() -> None:
    model = patches(3, 2)
    assert json.loads(words_of(model)["assumed"]) == ["crop_pct", "input_size", "mean", "std"]
    assert json.loads(words_of(model, 1, IMAGES)["assumed"]) == ["crop_pct", "mean", "std"]
    model.img_size = 8  # type: ignore[assignment]
    words = words_of(model)
    assert (words["assumed"], words["input_size"]) == ('["crop_pct", "mean", "std"]', "[8, 8]")
    assert with_words(words, {"mean": "[0, 0, 0]", "crop_pct": "1"})["assumed"] == '["std"]'
    tell(model, mean=(0.5, 0.5, 0.5), crop_pct=0.9)
    again = words_of(copy.deepcopy(model))
    assert (again["assumed"], again["mean"], again["crop_pct"]) == ('["std"]', "[0.5, 0.5, 0.5]", "0.9")
    assert "assumed" not in with_words(again, {"std": "[1, 1, 1]"})
    told = str(FileReport(Path("a.onnx"), 1, again, ()))
    assert "assumed    std: timm's default for this name, not told of these weights" in told


def test_pixels_of_other_channels_are_not_told() -> None:
    words = words_of(patches(1, 2), 1, ((torch.zeros(2, 1, 48, 32),), {}))
    assert not words.keys() & {"mean", "std"} and words["input_size"] == "[48, 32]"
    assert json.loads(words["assumed"]) == ["crop_pct"]


@pytest.mark.parametrize(("outputs", "told"), [(2, True), (3, False), (0, False)])
def test_classes_are_named_where_there_is_an_output_for_each(outputs: int, told: bool) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_vit", num_classes=outputs, depth=1, embed_dim=64)
    model.pretrained_cfg = {**model.pretrained_cfg, "label_names": ("cat", "dog")}
    assert classes_of(model) == (["cat", "dog"] if told else [])


@pytest.mark.slow
def test_a_backbone_and_a_new_head_of_transformers_name_no_classes() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=16, patch_size=8, num_hidden_layers=2, num_attention_heads=2, hidden_size=16, intermediate_size=16,
        id2label=dict(enumerate("abcdefghijklmnop")), label2id={each: i for i, each in enumerate("abcdefghijklmnop")},
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)
    assert classes_of(model) == [*"abcdefghijklmnop"]
    assert classes_of(wrap_cyclic(model, 2)) == [*"abcdefghijklmnop"]
    model.classifier = nn.Linear(16, 7)
    assert classes_of(model) == []
    assert classes_of(transformers.ViTModel(config)) == []  # whose tokens are of 16 numbers too


@pytest.mark.parametrize("inside", ["classifier", "pooler"])
def test_a_head_beside_the_parts_of_a_backbone_names_its_classes(inside: str) -> None:
    """CLIP's classifier in transformers has no part by the name of its backbone; a bare backbone has none either."""
    model = nn.Module()
    model.base_model_prefix, model.config = "clip", SimpleNamespace(id2label={0: "cat", 1: "dog"})  # type: ignore[assignment]
    model.vision_model = nn.Sequential(nn.Linear(4, 2))
    model.add_module(inside, nn.Linear(4, 2) if inside == "classifier" else nn.Sequential(nn.Linear(4, 2), nn.Tanh()))
    assert classes_of(model) == (["cat", "dog"] if inside == "classifier" else [])


def test_a_model_of_timm_in_one_of_transformers_has_its_head_inside() -> None:
    timm = pytest.importorskip("timm")
    model = nn.Module()
    model.base_model_prefix, model.config = "timm_model", SimpleNamespace(id2label={0: "cat", 1: "dog"})  # type: ignore[assignment]
    for outputs, names in ((2, ["cat", "dog"]), (3, [])):
        model.timm_model = timm.create_model("test_vit", num_classes=outputs, depth=1, embed_dim=64)
        assert classes_of(model) == names


def test_names_made_up_by_a_library_are_no_classes() -> None:
    model = nn.Flatten()
    model.config = SimpleNamespace(id2label={0: "LABEL_0", 1: "LABEL_1"})  # type: ignore[assignment]
    assert "classes" not in words_of(model, 1, IMAGES)


def test_what_the_model_says_itself_counts_first() -> None:
    class Told(nn.Flatten):
        def export_metadata(self) -> dict[str, str]:
            return {"input_size": "[1, 2]", "exit": "9", "mine": "yes", "model": "told"}

    words = words_of(Told(), 1, IMAGES)
    assert [words[name] for name in ("input_size", "mine", "exit", "model", "class")] == (
        ["[1, 2]", "yes", "1", "told", "Told"]
    )


@pytest.mark.parametrize("text", ["std", "[" * 100_000, '{"std": 1}', "[1, null]"])
def test_what_is_assumed_is_a_list_of_words_or_nothing(text: str) -> None:
    assert "assumed" not in with_words({"assumed": text, "std": "[1, 1, 1]"}, {"mean": "[0, 0, 0]"})


def test_how_pictures_are_cut_is_told_as_timm_knows_it() -> None:
    model = nn.Flatten()
    model.pretrained_cfg = {"crop_pct": 1, "crop_mode": "squash", "interpolation": ""}  # type: ignore[assignment]
    words = words_of(model, 1, IMAGES)
    assert {name: json.loads(words[name]) for name in words if name in ("crop_pct", "crop_mode", "interpolation")} == {
        "crop_pct": 1.0, "crop_mode": "squash"
    }  # fmt: skip
