"""What a classifier's file of weights says of how it is built: enough to measure the file alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from cycledistill.recipes.errors import CheckpointError, RecipeError
from cycledistill.recipes.hub.described import build_described, built_from_words

from ..recipe import Recipe, load_recipe

CLASS = "timm"
"""As which models of this command say whose they are."""

_PIXELS = ("mean", "std", "crop_pct", "interpolation")
_OF_FILES = {"pretrained", "checkpoint_path", "cache_dir", "pretrained_cfg", "pretrained_cfg_overlay"}
"""Arguments of `timm.create_model` that name other weights."""


def built_words(recipe: Recipe, classes: int) -> dict[str, str]:
    """How the model of a recipe is built, wrapped and given its images, for a file of its weights."""
    model = dataclasses.asdict(recipe.model) | {"num_classes": classes, "pretrained": False}
    augment = {name: getattr(recipe.augment, name) for name in _PIXELS}
    cyclic = dataclasses.asdict(recipe.cyclic)
    return built_from_words({"model_class": CLASS, "recipe": {"model": model, "cyclic": cyclic, "augment": augment}})


def described_recipe(path: Path) -> Recipe:
    """The recipe of the model that a file of weights says it is of; of its data it knows nothing.

    Raises:
        CheckpointError: The file does not say it, or says what is no recipe, or one that names other weights.
    """
    return build_described(path, _read)


def _read(config: dict[str, Any]) -> Recipe:
    said = config.get("recipe")
    if config.get("model_class") != CLASS or not isinstance(said, dict):
        raise CheckpointError("a classifier of timm is expected")
    found = load_recipe({name: said[name] for name in ("model", "cyclic", "augment") if name in said})
    if found.model.pretrained or _OF_FILES & found.model.kwargs.keys():
        raise RecipeError("model.pretrained and model.kwargs name other weights")
    return found
