"""What models say of themselves for their files."""

from __future__ import annotations

import json
from types import SimpleNamespace

import torch
from torch import nn

from cycledistill import Distill, wrap_cyclic
from cycledistill.metadata.model import words_of
from cycledistill.metadata.shape import KEYS, missing, name_in
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
    model = nn.Flatten()
    model.pretrained_cfg = {"architecture": "vit_s", "mean": (0.1, 0.2, 0.3), "std": (1, 1, 1)}  # type: ignore[assignment]
    model.config = SimpleNamespace(id2label={1: "dog", 0: "cat"})  # type: ignore[assignment]
    words = words_of(model, 1, IMAGES)
    assert (words["model"], words["class"], name_in(words)) == ("vit_s", "Flatten", "vit_s")
    assert missing(words) == [] and set(words) == set(KEYS)
    told = {name: json.loads(words[name]) for name in ("input_size", "mean", "std", "classes")}
    assert told == {"input_size": [48, 32], "mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "classes": ["cat", "dog"]}


def test_weights_say_the_size_that_the_model_declares_and_the_labels_of_timm() -> None:
    model = nn.Flatten()
    model.pretrained_cfg = {"input_size": (3, 64, 48), "label_names": ("cat", "dog"), "mean": "odd"}  # type: ignore[assignment]
    words = words_of(model)
    assert (json.loads(words["input_size"]), json.loads(words["classes"])) == ([64, 48], ["cat", "dog"])
    assert "mean" not in words and missing(words) == ["mean", "std"]


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


def test_how_pictures_are_cut_is_told_as_timm_knows_it() -> None:
    model = nn.Flatten()
    model.pretrained_cfg = {"crop_pct": 1, "crop_mode": "squash", "interpolation": ""}  # type: ignore[assignment]
    words = words_of(model, 1, IMAGES)
    assert {name: json.loads(words[name]) for name in words if name in ("crop_pct", "crop_mode", "interpolation")} == {
        "crop_pct": 1.0, "crop_mode": "squash"
    }  # fmt: skip
