"""What exported files say of themselves."""

from __future__ import annotations

import json
from types import SimpleNamespace

import torch
from torch import nn

from cycledistill import Distill, wrap_cyclic
from cycledistill.exporter.words import words_of
from tests import toys

IMAGES = ((torch.zeros(2, 3, 48, 32),), {})


def test_a_plain_model_says_what_it_is_and_no_more() -> None:
    words = words_of(toys.make(), 1, ((torch.zeros(2, 4, 6),), {}))
    assert set(words) == {"model", "exit", "versions"}
    assert (words["model"], words["exit"]) == ("ToyViT", "1")


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
    assert scheme(mine) == "mine"


def test_pixels_and_classes() -> None:
    model = nn.Flatten()
    model.pretrained_cfg = {"architecture": "vit_s", "mean": (0.1, 0.2, 0.3), "std": (1, 1, 1)}  # type: ignore[assignment]
    model.config = SimpleNamespace(id2label={1: "dog", 0: "cat"})  # type: ignore[assignment]
    words = words_of(model, 1, IMAGES)
    assert words["architecture"] == "vit_s"
    told = {name: json.loads(words[name]) for name in ("input_size", "mean", "std", "classes")}
    assert told == {"input_size": [48, 32], "mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "classes": ["cat", "dog"]}


def test_names_made_up_by_a_library_are_no_classes() -> None:
    model = nn.Flatten()
    model.config = SimpleNamespace(id2label={0: "LABEL_0", 1: "LABEL_1"})  # type: ignore[assignment]
    assert "classes" not in words_of(model, 1, IMAGES)


def test_what_the_model_says_itself_counts_first() -> None:
    class Told(nn.Flatten):
        def export_metadata(self) -> dict[str, str]:
            return {"input_size": "[1, 2]", "exit": "9", "mine": "yes"}

    words = words_of(Told(), 1, IMAGES)
    assert (words["input_size"], words["mine"], words["exit"]) == ("[1, 2]", "yes", "1")
