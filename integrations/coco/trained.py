"""What a run left behind: its model, ready to use or to measure."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from cycledistill.recipes.hub.card_fields import RunCards
from cycledistill.recipes.run.session import wanted_exits
from cycledistill.recipes.run.trained import TrainedRuns

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


def _tell(recipe: Recipe) -> tuple[str, str]:
    data, section = recipe.data, recipe.evaluate
    boxes = f"persons in the boxes of {Path(data.detections).name}" if data.detections else "persons in annotated boxes"
    settings = f"{'with' if section.flip else 'without'} flip test, decoding `{section.decode}`"
    optim = f"{recipe.optim.name}, learning rate {recipe.optim.lr:g}, {data.batch_size} persons a process and step"
    measured = f"{Path(data.val_annotations).name}, {boxes}, {settings}."
    return measured, f" on {Path(data.train_annotations).name} ({optim})"


recorded_card = RunCards(stored_recipe, _tell).card
"""What a run recorded of its weights, for the model card: ``model_card_kwargs=recorded_card("runs/a")``."""


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
