"""What a run left behind: its recipe and its weights, to load, to measure or to go on from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cycledistill.announced import announced
from cycledistill.recipes.config.overrides import changed
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.run.accelerator import open_accelerator
from cycledistill.recipes.weights.checkpoint import find_checkpoint, read_recipe, store_of

_logger = logging.getLogger(__name__)

R = TypeVar("R")
M = TypeVar("M")
S = TypeVar("S")

_WEIGHTS_ONLY = "{} holds weights only: name the recipe of its model (--config NAME)."


def find_weights(path: str | Path, ema: bool, recipe: object) -> tuple[Path, dict[str, Any]]:
    """The file of weights that a path means, and what ``recipe.json`` says of it.

    Of a file beside which a ``recipe`` is named that is nothing.

    Raises:
        CheckpointError: There is no checkpoint; a file of weights without a recipe, or asked for an average.
    """
    if Path(path).is_file():
        refuse_average(path, ema)
        if recipe is not None:
            return Path(path), {}
        beside = checkpoint_of(path)
        if beside is None:
            raise CheckpointError(_WEIGHTS_ONLY.format(path))
        return Path(path), read_recipe(beside)
    folder = find_checkpoint(path)
    return folder / ("ema.safetensors" if ema else "model.safetensors"), read_recipe(folder)


def checkpoint_of(path: str | Path) -> Path | None:
    """The checkpoint that a path means, or that the file lies in; ``None`` of a file of weights alone.

    Raises:
        CheckpointError: There is neither a file nor a checkpoint, or it is a folder that ``save_pretrained`` wrote.
    """
    file = Path(path)
    if (file / "config.json").is_file() and not (file / "recipe.json").is_file():
        raise CheckpointError(
            f"{path} is a published model, which holds no recipe to measure it by: name its file and a recipe, "
            f"{file / 'model.safetensors'} --config NAME (`cycledistill recipes` lists them)"
        )
    if not file.is_file():
        return find_checkpoint(path)
    beside = file.name in ("model.safetensors", "ema.safetensors") and (file.parent / "recipe.json").is_file()
    return file.parent if beside else None


def refuse_average(path: str | Path, ema: bool) -> None:
    """Refuse to take the average of the weights from what has one set of weights.

    Raises:
        CheckpointError: It is asked for.
    """
    if ema:
        raise CheckpointError(
            f"{path} holds one set of weights, and no average beside it (--ema, ema=True): runs and checkpoints have "
            "both; leave it out here"
        )


def open_trained(
    where: str | Path,
    config: str | None,
    ema: bool,
    *,
    command: str,
    load_recipe: Callable[[str], R],
    load_trained: Callable[..., M],
    stored_recipe: Callable[[Path], R],
    of_recipe: Callable[[R], S],
    of_model: Callable[[M], S],
) -> tuple[M, S]:
    """A model that a user names, and how it is used: by the recipe that is named, by its run's, or as it says itself.

    Args:
        where: A run's folder, a checkpoint, a file of weights, a folder that ``save_pretrained`` wrote, or a name on
            the hub.
        config: A recipe that was named beside it.
        ema: The average of the weights instead of the weights.
        command: The training command whose models are taken: ``"coco"``.
        load_recipe: The command's own, as the next two.
        load_trained: The same.
        stored_recipe: The same.
        of_recipe: How a model of a recipe is used.
        of_model: How one that comes without a recipe is.

    Raises:
        CheckpointError: There is no such model, it is damaged or of another command, or it would run code.
        RecipeError: There is no such recipe.
    """
    path = Path(where)
    of_run = path.is_dir() and not (path / "config.json").is_file()  # else `save_pretrained` wrote it
    if of_run:
        _refuse_other(path, command)
    if config is not None:
        recipe = load_recipe(config)
        return load_trained(path, ema, recipe), of_recipe(recipe)
    if of_run:
        return load_trained(path, ema), of_recipe(stored_recipe(path))
    model = load_trained(where, ema)
    return model, of_model(model)


def _refuse_other(path: Path, command: str) -> None:
    trained_by = read_recipe(find_checkpoint(path))["command"]
    if trained_by != command:
        taken = "; cycledistill predict takes it" if trained_by in announced("predict") else ""
        raise CheckpointError(
            f"{path} was trained by `cycledistill train {trained_by}`, and here models of `cycledistill train "
            f"{command}` are taken{taken}"
        )


def recipe_of_run(path: str | Path, load_recipe: Callable[[Mapping[str, Any]], R], command: str) -> R:
    """The recipe that a run or checkpoint was trained by, read by the ``load_recipe`` of a command (``"coco"``).

    Of a file of weights it is that of the checkpoint in which it lies.

    Raises:
        CheckpointError: There is no checkpoint, or a file of weights alone, or it holds no recipe of this command.
    """
    folder = checkpoint_of(path)
    if folder is None:
        raise CheckpointError(_WEIGHTS_ONLY.format(path))
    stored = read_recipe(folder, command)
    try:
        return load_recipe(stored["recipe"])
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / 'recipe.json'} is no recipe of this library: {error}") from error


def recipe_to_go_on(
    path: str | Path, stored_recipe: Callable[[Path], Any], output: str | None = None
) -> dict[str, Any]:
    """The recipe by which a run goes on when nothing else is said: its own, in the folder where it lies now.

    ``run.max_steps`` is left out where the checkpoint has reached it and was measured: a run that goes on would stop
    at once. One that ended before it was measured goes on to that, and stops.

    Args:
        path: A run's folder or a checkpoint.
        stored_recipe: The command's own.
        output: The folder in which it is to go on, where one is named.

    Raises:
        CheckpointError: There is no checkpoint, or it holds no recipe of this command.
    """
    checkpoint = find_checkpoint(path)
    recipe: dict[str, Any] = stored_recipe(checkpoint).to_dict()
    run, found = recipe["run"], read_recipe(checkpoint)
    if checkpoint.parent.name == "checkpoints":  # it may have been moved, or named from another folder
        run["output"] = str(checkpoint.parent.parent)
    here = store_of(output or run["output"]).folder.resolve() == checkpoint.parent.resolve()
    ended = run["max_steps"] is not None and found.get("step", 0) >= run["max_steps"]
    if ended and (found.get("metrics") or not here):  # a run of another folder owes this one no evaluation
        run["max_steps"] = None
    return recipe


def measure_trained(
    recipe: Any,
    path: str | Path,
    measure: Callable[[Any, Any], tuple[Any, dict[str, Any]]],
    *,
    load_trained: Callable[..., Any],
    stored_recipe: Callable[[Path], Any],
    measured_by: tuple[str, ...],
) -> dict[str, Any]:
    """Measure a checkpoint or file of weights and, where there is one, the average of the weights.

    Args:
        recipe: How to measure, and the device and precision.
        path: A run's folder, a checkpoint, or a file of weights.
        measure: ``(model, accelerator)`` to the figures by exit, and what they were measured on.
        load_trained: The command's own.
        stored_recipe: The command's own.
        measured_by: Starts of those keys of the recipe that change what is measured: a difference is logged.

    Returns:
        ``weights`` (what was measured), what ``measure`` said of the data, ``exits`` and, where there is an average,
        ``ema_exits``.
    """
    folder = None if Path(path).is_file() else checkpoint_of(path)
    averaged = folder is not None and (folder / "ema.safetensors").is_file()
    if folder is not None:
        for line in changed(stored_recipe(folder).to_dict(), recipe.to_dict()):
            if line.startswith(measured_by):
                _logger.warning("measuring by another recipe than it was trained by: %s", line)
    result: dict[str, Any] = {"weights": str(folder or path)}
    with open_accelerator(recipe.run.device, recipe.run.precision) as accelerator:
        for key, ema in (("exits", False), ("ema_exits", True))[: 2 if averaged else 1]:
            model = load_trained(folder or path, ema, recipe).to(accelerator.device)
            figures, facts = measure(model, accelerator)
            result |= facts | {key: figures}
    return result
