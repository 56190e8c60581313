"""What a run left behind: its model, ready to use or to measure."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import nn

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.run.engine import engine
from cycledistill.recipes.run.session import wanted_exits
from cycledistill.recipes.weights.checkpoint import find_checkpoint, load_weights, read_recipe, read_weights

from .data.loader import eval_loader
from .data.splits import open_validation
from .errors import DataError
from .evaluation.accuracy import evaluate
from .recipe import Recipe, load_recipe
from .training.build import ADVICE, create_model, image_size


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
    path = Path(path)
    if path.is_file():
        if recipe is None or recipe.model.num_classes is None:
            raise CheckpointError(f"{path} holds weights only: pass a recipe with model.name and model.num_classes.")
        model = create_model(recipe, recipe.model.num_classes)
        load_weights(model, read_weights(path), path, ADVICE)
        return model.eval()
    folder = find_checkpoint(path)
    recipe = recipe or stored_recipe(folder)
    try:
        classes = int(read_recipe(folder)["num_classes"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / 'recipe.json'} is of no classifier of this library: {error!r}.") from error
    section = dataclasses.replace(recipe.model, pretrained=False)  # the checkpoint has all the weights
    model = create_model(dataclasses.replace(recipe, model=section), classes)
    file = folder / ("ema.safetensors" if ema else "model.safetensors")
    load_weights(model, read_weights(file), file, ADVICE)
    return model.eval()


def stored_recipe(path: str | Path) -> Recipe:
    """The recipe that a run or checkpoint was trained by.

    Raises:
        CheckpointError: There is no checkpoint, or it holds no recipe of this command.
    """
    folder = find_checkpoint(path)
    try:
        return load_recipe(read_recipe(folder)["recipe"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / 'recipe.json'} is no recipe of this library: {error}") from error


def evaluate_trained(recipe: Recipe, path: str | Path) -> dict[str, Any]:
    """Accuracy of a checkpoint or weights file on the recipe's validation images, at every exit.

    Returns:
        ``weights`` (what was measured), ``exits`` and, where there is an average, ``ema_exits``.

    Raises:
        DataError: The images cannot be read, or have other classes than the checkpoint was trained on.
        CheckpointError: See :func:`load_trained`.
    """
    path, run = Path(path), recipe.run
    folder = None if path.is_file() else find_checkpoint(path)
    averaged = folder is not None and (folder / "ema.safetensors").is_file()
    result: dict[str, Any] = {"weights": str(folder or path)}
    with engine(run.device, run.precision) as accelerator:
        images, classes = open_validation(recipe.data, recipe.eval_batch_size)
        known = recipe.model.num_classes or (None if folder else len(classes) or None)
        recipe = dataclasses.replace(
            recipe, model=dataclasses.replace(recipe.model, pretrained=False, num_classes=known)
        )
        _check_classes(recipe, classes, folder)
        for key, ema in (("exits", False), ("ema_exits", True))[: 2 if averaged else 1]:
            model = load_trained(folder or path, ema, recipe).to(accelerator.device)
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
            shown = run.progress and accelerator.is_main_process
            result[key] = evaluate(model, loader, exits, precision=run.precision, progress=shown)
    return result


def _check_classes(recipe: Recipe, classes: list[str], folder: Path | None) -> None:
    """Refuse images of other classes than the checkpoint was trained on."""
    trained_on = read_recipe(folder).get("classes") if folder else None
    if trained_on and classes and trained_on != classes:
        raise DataError(
            f"{recipe.data.dir} has the classes {classes[:3]}... ({len(classes)}), {folder} was trained on "
            f"{trained_on[:3]}... ({len(trained_on)}): the accuracy would mean nothing."
        )
