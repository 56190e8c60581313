"""What a run left behind: its model, ready to use or to measure."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from cycledistill.recipes.hub.card_fields import recorded_results, recorded_training
from cycledistill.recipes.run.session import wanted_exits
from cycledistill.recipes.run.trained import TrainedRuns
from cycledistill.recipes.weights.checkpoint import find_checkpoint, read_recipe

from .evaluation.measure import evaluate
from .models.tokenpose import TokenPose
from .recipe import Recipe, load_recipe
from .training.build import create_model, eval_settings
from .training.session import ADVICE
from .training.sources import open_validation
from .weights.loading import check_network, load_pose_weights

_logger = logging.getLogger(__name__)


RUNS = TrainedRuns(
    load_recipe=load_recipe,
    create_model=lambda recipe, stored: create_model(recipe),
    load_file=lambda model, path, recipe: load_pose_weights(model, path),
    advice=ADVICE,
    measured_by=("model", "cyclic", "prune", "evaluate", "data.detect"),
    check=lambda stored, model, checkpoint: check_network(stored.get("network", {}), model.config, checkpoint),
)
"""What is particular to runs of this integration."""


load_trained, stored_recipe = RUNS.load, RUNS.recipe
"""The model of a run, ready to use: ``load_trained("runs/a")``; and the recipe that it was trained by."""


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

    def measure(model: TokenPose, accelerator: Any) -> tuple[Any, dict[str, Any]]:
        validation = open_validation(recipe.data, model.config.image_size)
        boxes = "annotated" if recipe.data.detections is None else "detected"
        _logger.info("%d persons in %s boxes", len(validation.persons), boxes)
        figures = evaluate(
            model,
            validation.persons,
            validation.images,
            recipe.data.joint_set,
            validation.truth,
            exits=wanted_exits(model, recipe.evaluate.exits),
            settings=eval_settings(recipe),
            progress=recipe.run.progress and accelerator.is_main_process,
        )
        return figures, {"persons": len(validation.persons), "boxes": boxes}

    return RUNS.evaluate(recipe, path, measure)
