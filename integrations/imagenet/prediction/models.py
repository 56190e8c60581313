"""The classifier that a user names: a run, a checkpoint, a file of weights, or a published model."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from cycledistill.recipes.run.trained import open_trained

from ..evaluation.settings import DEFAULT, EvalSettings
from ..recipe import Recipe, load_recipe
from ..trained import load_trained, stored_recipe


def open_model(where: str | Path, config: str | None = None, ema: bool = False) -> tuple[nn.Module, EvalSettings]:
    """A trained classifier in eval mode, on the CPU, and how it is evaluated: by its run's recipe, if it has one.

    How its pictures are prepared, and what its classes are called, the model says itself.

    Args:
        where: A run's folder, a checkpoint, a file of weights, a folder that timm's ``save_for_hf`` wrote, or a name
            on the Hugging Face hub, ``"user/name"``.
        config: The recipe of a file of weights that does not say it: a YAML file, or a packaged recipe's name.
        ema: The average of the weights instead of the weights.

    Raises:
        CheckpointError: There is no such model, it is damaged or of another kind, or it would run code.
        RecipeError: There is no such recipe.

    Example:
        >>> model, settings = open_model("runs/a")
    """
    return open_trained(
        where,
        config,
        ema,
        command="imagenet",
        load_recipe=load_recipe,
        load_trained=load_trained,
        stored_recipe=stored_recipe,
        of_recipe=_settings,
        of_model=lambda _: DEFAULT,
    )


def _settings(recipe: Recipe) -> EvalSettings:
    return EvalSettings(recipe.eval_batch_size, recipe.run.precision, recipe.data.broken_images)
