"""What a run left behind: its model, ready to use or to measure."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from cycledistill.recipes.config.overrides import changed
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.hub.card_fields import recorded_results, recorded_training
from cycledistill.recipes.run.engine import engine
from cycledistill.recipes.weights import read_weights
from cycledistill.recipes.weights.checkpoint import find_checkpoint, load_weights, read_recipe

from .evaluation.measure import evaluate
from .models.tokenpose import TokenPose
from .recipe import Recipe, load_recipe
from .training.build import create_model, protocol_of
from .training.session import ADVICE
from .training.sources import open_validation
from .weights.loading import check_network, load_pose_weights

_logger = logging.getLogger(__name__)


def load_trained(path: str | Path, ema: bool = False, recipe: Recipe | None = None) -> TokenPose:
    """The model of a run or checkpoint, wrapped, in eval mode, on the CPU.

    Args:
        path: A run's folder, a checkpoint, or a file of weights, ours or an official one (then ``recipe`` says of which
            model).
        ema: The average of the weights instead of the weights.
        recipe: Replaces the recipe stored in the checkpoint.

    Raises:
        CheckpointError: Missing, damaged, of another model, or holding pickled code.

    Example:
        >>> model = load_trained("runs/a")
        >>> model.cyclic.exit = 2  # any-time inference; unwrap_cyclic(model) gives the plain TokenPose
    """
    path = Path(path)
    if path.is_file():
        if recipe is None:
            raise CheckpointError(f"{path} holds weights only: say of which model by a recipe (--config NAME).")
        model = create_model(recipe)
        load_pose_weights(model, path)
        return model.eval()
    folder = find_checkpoint(path)
    file = folder / ("ema.safetensors" if ema else "model.safetensors")
    model = create_model(recipe or stored_recipe(folder))
    check_network(read_recipe(folder).get("network", {}), model.config, folder)
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


def recorded_card(path: str | Path, ema: bool = False) -> dict[str, Any]:
    """What a run recorded of the weights that `load_trained` takes from it, as ``model_card_kwargs``.

    Args:
        path: A run's folder or a checkpoint.
        ema: Of the average of the weights.

    Returns:
        ``results``, empty where that step was not evaluated, ``evaluation`` and ``training``. Of files only the names.

    Raises:
        CheckpointError: There is no checkpoint, or it holds no recipe of this command.

    Example:
        >>> model = load_trained("runs/a", ema=True)
        >>> model.push_to_hub("user/sdpose", model_card_kwargs=recorded_card("runs/a", ema=True))
    """
    recipe, stored = stored_recipe(path), read_recipe(find_checkpoint(path))
    data, section = recipe.data, recipe.evaluate
    boxes = f"persons in the boxes of {Path(data.detections).name}" if data.detections else "persons in annotated boxes"
    settings = f"{'with' if section.flip else 'without'} flip test, decoding `{section.decode}`"
    optim = f"{recipe.optim.name}, learning rate {recipe.optim.lr:g}, {data.batch_size} persons a process and step"
    return {
        "results": recorded_results(stored, ema),
        "evaluation": (
            f"Measured by the run that trained the weights: {Path(data.val_annotations).name}, {boxes}, {settings}."
        ),
        "training": recorded_training(stored, ema, f" on {Path(data.train_annotations).name} ({optim})"),
    }


def evaluate_trained(recipe: Recipe, path: str | Path) -> dict[str, Any]:
    """AP of a checkpoint or file of weights on the recipe's validation persons, at every exit.

    Returns:
        ``weights`` (what was measured), ``persons``, ``exits`` and, where there is an average, ``ema_exits``.

    Raises:
        PoseDataError: The data set cannot be read.
        CheckpointError: See :func:`load_trained`.
    """
    path, section = Path(path), recipe.evaluate
    folder = None if path.is_file() else find_checkpoint(path)
    averaged = folder is not None and (folder / "ema.safetensors").is_file()
    result: dict[str, Any] = {"weights": str(folder or path)}
    if folder is not None:
        for line in changed(stored_recipe(folder).to_dict(), recipe.to_dict()):
            if line.startswith(("model", "cyclic", "prune", "evaluate", "data.detect")):
                _logger.warning("measuring by another recipe than it was trained by: %s", line)
    with engine(recipe.run.device, recipe.run.precision) as accelerator:
        for key, ema in (("exits", False), ("ema_exits", True))[: 2 if averaged else 1]:
            model = load_trained(folder or path, ema, recipe).to(accelerator.device)
            validation = open_validation(recipe.data, model.config.image_size)
            handle: Any = getattr(model, "cyclic", None)
            result["persons"] = len(validation.persons)
            result["boxes"] = "annotated" if recipe.data.detections is None else "detected"
            _logger.info("%d persons in %s boxes", len(validation.persons), result["boxes"])
            result[key] = evaluate(
                model,
                validation.persons,
                validation.images,
                recipe.data.joint_set,
                validation.truth,
                exits=section.exits or list(range(1, handle.cycles + 2) if handle else [1]),
                protocol=protocol_of(recipe),
                progress=recipe.run.progress and accelerator.is_main_process,
            )
    return result
