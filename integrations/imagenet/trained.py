"""What a run left behind: its model, ready to use or to measure."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import nn

from cycledistill.recipes.weights.checkpoint import find_checkpoint, load_weights, read_recipe, read_weights

from .data.loader import eval_loader
from .data.splits import ImageSets, open_validation
from .errors import CheckpointError, DataError
from .place import take_place
from .recipe import Recipe, load_recipe
from .training.build import ADVICE, create_model, image_size
from .training.evaluate import evaluate


def load_trained(path: str | Path, ema: bool = False, config: Recipe | None = None) -> nn.Module:
    """The model of a run or checkpoint, wrapped, in eval mode, on the CPU.

    Args:
        path: A run's folder, a checkpoint, or a weights file (``.safetensors``, ``.pth``; then ``config`` with
            ``model.num_classes`` is needed).
        ema: The average of the weights instead of the weights.
        config: Replaces the recipe stored in the checkpoint.

    Raises:
        CheckpointError: Missing, damaged, of another model, or holding pickled code.

    Example:
        >>> model = load_trained("runs/a")
        >>> model.cyclic.exit = 2  # any-time inference; unwrap_cyclic(model) gives the plain timm model
    """
    path = Path(path)
    if path.is_file():
        if config is None or config.model.num_classes is None:
            raise CheckpointError(f"{path} holds weights only: pass a recipe with model.name and model.num_classes.")
        model = create_model(config, config.model.num_classes)
        load_weights(model, read_weights(path), path, ADVICE)
        return model.eval()
    folder = find_checkpoint(path)
    try:
        classes = int(read_recipe(folder)["model"]["num_classes"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / 'recipe.json'} is no recipe of this library: {error!r} is missing."
        ) from error
    model = create_model(config or stored_recipe(folder), classes)
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


def evaluate_trained(config: Recipe, path: str | Path) -> dict[str, Any]:
    """Accuracy of a checkpoint or weights file on the recipe's validation images, at every exit.

    Returns:
        ``weights`` (what was measured), ``images``, ``exits`` and, where there is an average, ``ema_exits``.

    Raises:
        DataError: The images cannot be read, or have other classes than the checkpoint was trained on.
        CheckpointError: See :func:`load_trained`.
    """
    path = Path(path)
    place = take_place(config.run.device)
    try:
        validation, classes = open_validation(config.data)
        folder = None if path.is_file() else find_checkpoint(path)
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, pretrained=False))
        if folder is None and config.model.num_classes is None:
            config.model.num_classes = len(classes) or None
        trained_on = read_recipe(folder).get("classes") if folder else None
        if trained_on and classes and trained_on != classes:
            raise DataError(
                f"{config.data.dir} has the classes {classes[:3]}... ({len(classes)}), {folder} was trained on "
                f"{trained_on[:3]}... ({len(trained_on)}): the accuracy would mean nothing."
            )
        result: dict[str, Any] = {"weights": str(folder or path)}
        averaged = folder is not None and (folder / "ema.safetensors").is_file()
        for ema in (False, True) if averaged else (False,):
            model = load_trained(folder or path, ema, config).to(place.device)
            loader = eval_loader(ImageSets(validation, validation, classes), config, image_size(model, config), place)
            exits = config.cyclic.exits or list(range(1, config.cyclic.cycles + 2))
            measured = evaluate(
                model, loader, exits, precision=config.run.precision, progress=config.run.progress and place.primary
            )
            result["ema_exits" if ema else "exits"] = measured
    finally:
        place.leave()
    return result
