"""The model that a user names: a run, a checkpoint, a file of weights, or a published model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cycledistill.recipes.run.trained import open_trained

from ..evaluation.measure import EvalSettings
from ..models.tokenpose import TokenPose
from ..recipe import load_recipe
from ..trained import load_trained, stored_recipe
from ..training.build import eval_settings


def open_model(where: str | Path, config: str | None = None, ema: bool = False) -> tuple[TokenPose, EvalSettings]:
    """A trained pose model in eval mode, on the CPU, and how it is evaluated: by its run's recipe, if it has one.

    Args:
        where: A run's folder, a checkpoint, a file of weights, a folder that ``save_pretrained`` wrote, or a name on
            the Hugging Face hub, ``"user/name"``.
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
        command="coco",
        load_recipe=load_recipe,
        load_trained=load_trained,
        stored_recipe=stored_recipe,
        of_recipe=eval_settings,
        of_model=lambda _: dataclasses.replace(EvalSettings(), broken="stop"),
    )
