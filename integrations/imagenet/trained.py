"""What a run left behind: its model, ready to use or to measure."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import nn

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.hub.files import is_published, published_beside
from cycledistill.recipes.run.accelerator import open_accelerator
from cycledistill.recipes.run.session import wanted_exits
from cycledistill.recipes.run.trained import (
    checkpoint_of,
    find_weights,
    measure_trained,
    recipe_of_run,
    refuse_average,
)
from cycledistill.recipes.weights import read_weights
from cycledistill.recipes.weights.checkpoint import load_weights, read_recipe
from cycledistill.recipes.weights.files import read_metadata

from .data.splits import open_validation
from .evaluation.accuracy import evaluate
from .published import load_published, words_in
from .recipe import Recipe, load_recipe
from .training.build import ADVICE, create_model, describe_data, validation_batches
from .training.checks import check_classes, warn_of_other_pictures
from .training.described import described_recipe
from .weights.classes import count_in, names_in

_PICTURES = tuple(f"augment.{name}" for name in ("mean", "std", "crop_pct", "interpolation"))
"""Keys that say how pictures are prepared that are measured on."""


def load_trained(path: str | Path, ema: bool = False, recipe: Recipe | None = None) -> nn.Module:
    """The model of a run or checkpoint, wrapped, in eval mode, on the CPU.

    Args:
        path: A run's folder, a checkpoint, a file of weights (``.safetensors``, ``.pth``; then ``recipe`` says of which
            model they are, unless the file says it or lies in its checkpoint), a folder that timm's ``save_for_hf``
            wrote, or a name on the hub (see `load_published`: it may be plain).
        ema: The average of the weights instead of the weights.
        recipe: Replaces the recipe stored in the checkpoint.

    Raises:
        CheckpointError: Missing, damaged, of another model, or holding pickled code.

    Example:
        >>> model = load_trained("runs/a")
        >>> model.cyclic.exit = 2  # any-time inference; unwrap_cyclic(model) gives the plain timm model
    """
    if is_published(path):
        refuse_average(path, ema)
        return load_published(path)
    folder = published_beside(path) if recipe is None else None
    if folder is not None:
        refuse_average(path, ema)
        return load_published(folder)
    if recipe is None and checkpoint_of(path) is None:
        recipe = stored_recipe(path)  # as the file itself says
    file, stored = find_weights(path, ema, recipe)
    recipe = recipe or stored_recipe(path)
    weights, names = read_weights(file), stored.get("classes") or names_in(words_in(file))
    counted = stored.get("num_classes") or len(names) or count_in(weights, recipe.model.name)
    classes = recipe.model.num_classes or counted
    if not isinstance(classes, int):
        raise CheckpointError(f"{file}: nothing says of how many classes: pass a recipe with model.num_classes.")
    plain = dataclasses.replace(recipe.model, pretrained=False)  # the weights that are loaded are all there are
    model = create_model(dataclasses.replace(recipe, model=plain), classes)
    load_weights(model, weights, file, ADVICE)
    describe_data(model, recipe, names)
    return model.eval()


def stored_recipe(path: str | Path) -> Recipe:
    """The recipe that a run or checkpoint was trained by; of a file of weights alone, what it says of its model.

    Raises:
        CheckpointError: There is no checkpoint, or it holds no recipe of this command.
    """
    if checkpoint_of(path) is None and "built_from" in read_metadata(path):
        return described_recipe(Path(path))
    return recipe_of_run(path, load_recipe, "imagenet")


def evaluate_trained(recipe: Recipe, path: str | Path) -> dict[str, Any]:
    """Accuracy of a checkpoint or weights file on the recipe's validation images, at every exit.

    Returns:
        ``weights`` (what was measured), ``exits`` and, where there is an average, ``ema_exits``.

    Raises:
        DataError: The images cannot be read, or have other classes than the weights were trained on.
        CheckpointError: See :func:`load_trained`.
    """
    folder, alone = checkpoint_of(path), Path(path).is_file()
    words = words_in(path) if alone else {}
    warn_of_other_pictures(words, recipe, path)
    # opened here already: a streamed set is opened for its share of the processes
    with open_accelerator(recipe.run.device, recipe.run.precision):
        images, classes = open_validation(recipe.data, recipe.eval_batch_size)
        stored = read_recipe(folder).get("classes") if folder else None
        check_classes(stored or names_in(words), classes, path, recipe)
        if alone and recipe.model.num_classes is None:
            model = dataclasses.replace(recipe.model, num_classes=len(classes) or None)
            recipe = dataclasses.replace(recipe, model=model)

        def measure(model: nn.Module, accelerator: Any) -> tuple[Any, dict[str, Any]]:
            loader = validation_batches(recipe, images, model, accelerator)
            exits = wanted_exits(model, recipe.evaluate.exits)
            shown = recipe.run.progress and accelerator.is_main_process
            return evaluate(model, loader, exits, precision=recipe.run.precision, progress=shown), {}

        return measure_trained(
            recipe,
            path,
            measure,
            load_trained=load_trained,
            stored_recipe=stored_recipe,
            measured_by=("model.name", "model.img_size", "model.kwargs", "cyclic", *_PICTURES),
        )
