"""What a run left behind: its model, ready to use or to measure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.run.accelerator import open_accelerator
from cycledistill.recipes.run.session import wanted_exits
from cycledistill.recipes.run.trained import TrainedRuns
from cycledistill.recipes.weights import read_weights
from cycledistill.recipes.weights.checkpoint import find_checkpoint, load_weights, read_recipe

from .data.loader import eval_loader
from .data.splits import open_validation
from .errors import DataError
from .evaluation.accuracy import evaluate
from .recipe import Recipe, load_recipe
from .training.build import ADVICE, create_model, image_size


def _create(recipe: Recipe, stored: Mapping[str, Any]) -> nn.Module:
    """The model with as many classes as the checkpoint says, or the recipe where there is none."""
    try:
        classes = int(stored["num_classes"] if stored else recipe.model.num_classes or 0)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"recipe.json is of no classifier of this library: {error!r}.") from error
    # the weights that are loaded are all there are
    return create_model(dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, pretrained=False)), classes)


RUNS = TrainedRuns(
    load_recipe=load_recipe,
    create_model=_create,
    load_file=lambda model, path, recipe: load_weights(model, read_weights(path), path, ADVICE),
    advice=ADVICE,
    measured_by=("model.name", "model.img_size", "model.kwargs", "cyclic"),
)
"""What is particular to runs of this integration."""


def load_trained(path: str | Path, ema: bool = False, recipe: Recipe | None = None) -> nn.Module:
    """The model of a run or checkpoint, wrapped, in eval mode, on the CPU.

    Args:
        path: A run's folder, a checkpoint, or a weights file (``.safetensors``, ``.pth``; then ``recipe`` with
            ``model.num_classes`` is needed).
        ema: The average of the weights instead of the weights.
        recipe: Replaces the recipe stored in the checkpoint.

    Raises:
        CheckpointError: Missing, damaged, of another model, or holding pickled code.

    Example:
        >>> model = load_trained("runs/a")
        >>> model.cyclic.exit = 2  # any-time inference; unwrap_cyclic(model) gives the plain timm model
    """
    if Path(path).is_file() and (recipe is None or recipe.model.num_classes is None):
        raise CheckpointError(f"{path} holds weights only: pass a recipe with model.name and model.num_classes.")
    return RUNS.load(path, ema, recipe)


def stored_recipe(path: str | Path) -> Recipe:
    """The recipe that a run or checkpoint was trained by.

    Raises:
        CheckpointError: There is no checkpoint, or it holds no recipe of this command.
    """
    return RUNS.recipe(path)


def evaluate_trained(recipe: Recipe, path: str | Path) -> dict[str, Any]:
    """Accuracy of a checkpoint or weights file on the recipe's validation images, at every exit.

    Returns:
        ``weights`` (what was measured), ``exits`` and, where there is an average, ``ema_exits``.

    Raises:
        DataError: The images cannot be read, or have other classes than the checkpoint was trained on.
        CheckpointError: See :func:`load_trained`.
    """
    with open_accelerator(
        recipe.run.device, recipe.run.precision
    ):  # a streamed set is opened for its share of the processes
        return _evaluate(recipe, path)


def _evaluate(recipe: Recipe, path: str | Path) -> dict[str, Any]:
    folder = None if Path(path).is_file() else find_checkpoint(path)
    images, classes = open_validation(recipe.data, recipe.eval_batch_size)
    known = recipe.model.num_classes or (None if folder else len(classes) or None)
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, pretrained=False, num_classes=known))
    _check_classes(recipe, classes, folder)

    def measure(model: nn.Module, accelerator: Any) -> tuple[Any, dict[str, Any]]:
        loader = eval_loader(
            images,
            recipe.augment,
            image_size(model, recipe),
            batch_size=recipe.eval_batch_size,
            device=accelerator.device,
            workers=recipe.data.workers,
            distributed=accelerator.num_processes > 1,
        )
        exits = wanted_exits(model, recipe.evaluate.exits)
        shown = recipe.run.progress and accelerator.is_main_process
        return evaluate(model, loader, exits, precision=recipe.run.precision, progress=shown), {}

    return RUNS.evaluate(recipe, path, measure)


def _check_classes(recipe: Recipe, classes: list[str], folder: Path | None) -> None:
    """Refuse images of other classes than the checkpoint was trained on."""
    trained_on = read_recipe(folder).get("classes") if folder else None
    if trained_on and classes and trained_on != classes:
        raise DataError(
            f"{recipe.data.dir} has the classes {classes[:3]}... ({len(classes)}), {folder} was trained on "
            f"{trained_on[:3]}... ({len(trained_on)}): the accuracy would mean nothing."
        )
