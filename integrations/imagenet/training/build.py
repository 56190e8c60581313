"""From a recipe to a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from timm.data.config import resolve_model_data_config
from torch import nn

from cycledistill import wrap_cyclic
from cycledistill.metadata.model import tell
from cycledistill.recipes.config.distillation import read_distill
from cycledistill.recipes.config.overrides import did_you_mean
from cycledistill.stack.copies import bare_copy, unnoticed
from cycledistill.stack.given import call_of, is_of_the_copy
from cycledistill.stack.probe import run_meta

from ..data.loader import eval_loader
from ..data.splits import Images
from ..recipe import Recipe, RecipeError

ADVICE = "check model.name, model.kwargs, model.img_size and the number of classes"
"""What to look at when weights do not fit the model."""


def create_model(recipe: Recipe, classes: int) -> nn.Module:
    """The timm model of a recipe, wrapped; ``cycles=1`` without distillation is the plain model's training.

    Args:
        recipe: The recipe.
        classes: Number of classes, where the recipe leaves it open.

    Raises:
        RecipeError: timm has no such model, or it does not take the arguments or images of this size, or cannot be
            cycled.

    Example:
        >>> model = create_model(load_recipe("deit_tiny"), classes=1000)
    """
    spec = recipe.model
    kwargs: dict[str, Any] = dict(spec.kwargs)
    if spec.img_size is not None:
        kwargs["img_size"] = spec.img_size
    model = create_plain(
        spec.name,
        kwargs,
        pretrained=spec.pretrained,
        num_classes=spec.num_classes or classes,
        drop_rate=spec.drop,
        drop_path_rate=spec.drop_path,
    )
    _check_size(model, recipe)
    try:
        wrap_cyclic(model, recipe.cyclic.cycles, read_distill(recipe.cyclic.distill), blocks=recipe.cyclic.blocks)
    except ValueError as error:
        raise RecipeError(f"cyclic: {error}") from error
    return model


def create_plain(name: str, kwargs: Mapping[str, Any], **settings: Any) -> nn.Module:
    """A timm model as it is.

    Args:
        name: The model.
        kwargs: What it is built with.
        **settings: The same, of `timm.create_model`.

    Raises:
        RecipeError: timm has no such model, or it does not take the arguments.
    """
    check_name(name)
    try:
        return timm.create_model(name, **settings, **kwargs)
    except (OSError, ImportError):  # of weights that are fetched, or of a package that is missing
        raise
    except Exception as error:  # each model of timm has its own, assertions among them
        raise RecipeError(f"model.kwargs={dict(kwargs)!r} do not fit {name}: {_in_words(error)}") from error


def describe_data(model: nn.Module, recipe: Recipe, classes: Sequence[object]) -> None:
    """Have a model say what images it is trained on, where timm's models do: files of it then hold that too."""
    side, augment = image_size(model, recipe), recipe.augment
    told = {
        "input_size": (3, side, side),
        "mean": tuple(augment.mean),
        "std": tuple(augment.std),
        "crop_pct": augment.crop_pct,
        "crop_mode": "center",
        "interpolation": augment.eval_interpolation,
    }
    names = {"label_names": tuple(map(str, classes))} if classes else {}
    told["num_classes"] = model.num_classes  # timm leaves names out that are of another number of classes
    tell(model, **told, **names)


def check_name(name: str) -> None:
    """Refuse a model that timm does not have, before anything costly is done for it.

    Raises:
        RecipeError: It names the nearest models that timm has.
    """
    if not timm.is_model(name):
        raise RecipeError(f"model.name: timm has no model {name!r}.{did_you_mean(name, timm.list_models())}")


@unnoticed()
def _check_size(model: nn.Module, recipe: Recipe) -> None:
    """Refuse images of a size that only the first forward would, by a trial without data."""
    copied, side = bare_copy(model), image_size(model, recipe)
    if copied is None:
        return
    try:
        run_meta(copied, call_of(torch.zeros(1, 3, side, side, device="meta")))
    except Exception as error:  # whatever the model raises
        if not is_of_the_copy(error):
            raise RecipeError(
                f"model.name={recipe.model.name!r} does not run on RGB images of {side} x {side} pixels "
                f"({_in_words(error)}): set model.img_size or model.kwargs otherwise"
            ) from error


def _in_words(error: Exception) -> str:
    return str(error).strip() or type(error).__name__


def validation_batches(recipe: Recipe, images: Images, model: nn.Module, accelerator: Any) -> Any:
    """Batches to measure a recipe's model on, this process's share of them."""
    return eval_loader(
        images,
        recipe.augment,
        image_size(model, recipe),
        batch_size=recipe.eval_batch_size,
        device=accelerator.device,
        workers=recipe.data.workers,
        distributed=accelerator.num_processes > 1,
    )


def image_size(model: nn.Module, recipe: Recipe) -> int:
    """Side of the square images the model takes, pixels."""
    if recipe.model.img_size is not None:
        return recipe.model.img_size
    return int(resolve_model_data_config(model)["input_size"][-1])
