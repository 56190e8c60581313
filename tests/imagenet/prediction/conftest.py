"""A run of two classes that nobody trained, and pictures of many kinds to show it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cycledistill.integrations.imagenet.recipe import Recipe, load_recipe
from cycledistill.integrations.imagenet.training.build import create_model, describe_data
from cycledistill.metadata.model import words_of
from cycledistill.recipes.weights.checkpoint import store_of

NAMES = ["dark", "pale"]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose validation pictures have all sizes and modes."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for place, (name, size, mode) in enumerate(
        [
            ("dark/1.png", (40, 30), "RGB"),
            ("dark/2.jpg", (24, 61), "RGB"),
            ("dark/10.png", (30, 30), "L"),
            ("pale/1.png", (33, 21), "RGBA"),
            ("pale/2.png", (50, 25), "P"),
            ("pale/3.png", (17, 90), "I;16"),
            ("pale/4.jpg", (64, 64), "CMYK"),
        ]
    ):
        for split in ("train", "val"):
            file = folder / split / name
            file.parent.mkdir(parents=True, exist_ok=True)
            width, height = size
            shades = rng.integers(0, 2**16, (height, width), dtype=np.uint16)
            colours = rng.integers(0, 200, (height, width, 3), dtype=np.uint8) + 8 * np.uint8(place)
            image = Image.fromarray(shades) if mode == "I;16" else Image.fromarray(colours).convert(mode)
            image.save(file)
    return folder


@pytest.fixture(scope="session")
def recipe(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return load_recipe(
        {
            "model": {"name": "test_vit", "img_size": 16, "kwargs": {"patch_size": 8, "depth": 2}},
            "data": {"dir": str(photos), "batch_size": 4, "workers": 0},
            "augment": {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7], "crop_pct": 0.75, "interpolation": "bilinear"},
            "evaluate": {"batch_size": 3},
            "run": {"output": str(tmp_path_factory.mktemp("runs") / "a"), "device": "cpu", "progress": False},
        }
    )


@pytest.fixture(scope="session")
def run(recipe: Recipe) -> Path:
    """A run as training leaves it: weights, their average, recipe and classes."""
    torch.manual_seed(0)
    model = create_model(recipe, 2)
    describe_data(model, recipe, NAMES)
    torch.nn.init.normal_(model.head.weight, std=0.1)  # else all classes are about as likely
    weights = model.state_dict()
    average = {name: 1.5 * tensor for name, tensor in weights.items()}
    about = {"command": "imagenet", "recipe": dataclasses.asdict(recipe), "num_classes": 2, "classes": NAMES}
    store_of(recipe.run.output).save(1, weights, average, {}, about, words_of(model))
    return Path(recipe.run.output)
