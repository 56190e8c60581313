"""What a run left behind: its model, ready to use or to measure."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from cycledistill.recipes.hub.card_fields import RunCards
from cycledistill.recipes.run.session import wanted_exits
from cycledistill.recipes.run.trained import TrainedRuns

from .data.clips import Clip
from .evaluation.measure import evaluate
from .models.lifter import Lifter
from .recipe import Recipe, load_recipe
from .training.build import create_model, eval_settings
from .training.session import ADVICE
from .training.sources import open_clips
from .weights.loading import load_lifter_weights

RUNS = TrainedRuns(
    load_recipe=load_recipe,
    create_model=lambda recipe, stored: create_model(recipe),
    load_file=lambda model, path, recipe: load_lifter_weights(model, path, recipe.model.resize),
    advice=ADVICE,
    measured_by=("model", "hourglass", "cyclic", "evaluate", "data.source", "data.frames", "data.confidence"),
)
"""What is particular to runs of this integration."""


load_trained, stored_recipe = RUNS.load, RUNS.recipe
"""The model of a run, ready to use: ``load_trained("runs/a")``; and the recipe that it was trained by."""


def _tell(recipe: Recipe) -> tuple[str, str]:
    data, section = recipe.data, recipe.evaluate
    tested = {
        "generated": "motion made by formulas, which says nothing about people",
        "cmu": f"recorded motion ({Path(data.motion or '').name}), seen by made-up cameras with made-up noise",
        "h36m": f"Human3.6M, subjects {', '.join(data.test_subjects)}, 2D from {Path(data.pose_2d or '').name}",
    }[data.source]
    settings = f"{'with' if section.flip else 'without'} flip test, mode `{section.mode}`, border `{section.border}`"
    optim = f"{recipe.optim.name}, learning rate {recipe.optim.lr:g}, {data.batch_size} windows a process and step"
    measured = (
        f"test clips of {tested}; {settings}. Errors are in millimetres, velocity in millimetres a frame; pck150, auc "
        "and temporal_std_ratio are shares."
    )
    return measured, f" on source `{data.source}` ({optim})"


recorded_card = RunCards(stored_recipe, _tell).card
"""What a run recorded of its weights, for the model card: ``model_card_kwargs=recorded_card("runs/a")``."""


def evaluate_trained(recipe: Recipe, path: str) -> dict[str, Any]:
    """Errors of a checkpoint or file of weights on the recipe's test clips, at every exit.

    Returns:
        ``weights`` (what was measured), ``clips``, ``exits`` and, where there is an average, ``ema_exits``.

    Raises:
        LiftingDataError: The data cannot be read.
        CheckpointError: See :func:`load_trained`.
    """

    @cache
    def clips() -> list[Clip]:
        return open_clips(recipe.data, ("test",))[0]

    def measure(model: Lifter, accelerator: Any) -> tuple[Any, dict[str, Any]]:
        figures = evaluate(
            model,
            clips(),
            settings=eval_settings(recipe),
            exits=wanted_exits(model, recipe.evaluate.exits),
            progress=recipe.run.progress and accelerator.is_main_process,
        )
        return figures, {"clips": len(clips())}

    return RUNS.evaluate(recipe, path, measure)
