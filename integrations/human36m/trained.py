"""What a run left behind: its model, ready to use or to measure."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any

from cycledistill.recipes.hub.card_fields import recorded_results, recorded_training
from cycledistill.recipes.hub.files import is_published, published_beside
from cycledistill.recipes.run.session import wanted_exits
from cycledistill.recipes.run.trained import find_weights, measure_trained, recipe_of_run, refuse_average
from cycledistill.recipes.weights import read_weights
from cycledistill.recipes.weights.checkpoint import find_checkpoint, load_weights, read_recipe

from .data.clips import Clip
from .evaluation.measure import evaluate
from .models.lifter import Lifter
from .recipe import Recipe, load_recipe
from .training.build import convention_of_recipe, create_model, eval_settings
from .training.session import ADVICE
from .training.sources import FRAME_RATES, open_clips
from .weights.described import model_of_file
from .weights.loading import load_lifter_weights, stored_convention

_logger = logging.getLogger(__name__)


def load_trained(path: str | Path, ema: bool = False, recipe: Recipe | None = None) -> Lifter:
    """The model of a run or checkpoint, wrapped, in eval mode, on the CPU.

    Args:
        path: A run's folder, a checkpoint, a file of weights, a folder that ``save_pretrained`` wrote, or a name on the
            hub. Of a file that does not say itself of which model it is, such as an official one, ``recipe`` says it.
        ema: The average of the weights instead of the weights.
        recipe: Replaces the recipe stored in the checkpoint.

    Raises:
        CheckpointError: Missing, damaged, of another model, or holding pickled code; ``ema`` of what has one set of
            weights.

    Example:
        >>> model = load_trained("runs/a")
        >>> model(keypoints).shape  # (B, F, 17, 2), normalised, to (B, F, 17, 3), in model.convention.unit
    """
    if recipe is None and Path(path).is_file():
        refuse_average(path, ema)
        folder = published_beside(path)
        if folder is not None:
            return Lifter.from_pretrained(folder)
        model = model_of_file(path)
        load_lifter_weights(model, path)
        return model.eval()
    if is_published(path):
        refuse_average(path, ema)
        return Lifter.from_pretrained(path)
    file, stored = find_weights(path, ema, recipe)
    recipe = recipe or stored_recipe(path)
    model = create_model(recipe)
    if stored:
        load_weights(model, read_weights(file), file, ADVICE)
        model.convention = stored_convention(file) or convention_of_recipe(stored_recipe(path))
    else:
        load_lifter_weights(model, file, recipe.model.resize)
    return model.eval()


def stored_recipe(path: str | Path) -> Recipe:
    """The recipe that a run or checkpoint was trained by.

    Raises:
        CheckpointError: There is no checkpoint, or it holds no recipe of this command.
    """
    return recipe_of_run(path, load_recipe, "human36m")


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
        >>> model.push_to_hub("user/lifter", model_card_kwargs=recorded_card("runs/a", ema=True))
    """
    recipe, stored = stored_recipe(path), read_recipe(find_checkpoint(path))
    data, section = recipe.data, recipe.evaluate
    tested = {
        "generated": "motion made by formulas, which says nothing about people",
        "cmu": f"recorded motion ({Path(data.motion or '').name}), seen by made-up cameras with made-up noise",
        "h36m": f"Human3.6M, subjects {', '.join(data.test_subjects)}, 2D from {Path(data.pose_2d or '').name}",
        "3dhp": f"MPI-INF-3DHP, valid frames, annotated 2D, {data.annotation} 3D ({Path(data.test_data or '').name})",
    }[data.source]
    settings = f"{'with' if section.flip else 'without'} flip test, mode `{section.mode}`, border `{section.border}`"
    optim = f"{recipe.optim.name}, learning rate {recipe.optim.lr:g}, {data.batch_size} windows a process and step"
    return {
        "results": recorded_results(stored, ema),
        "evaluation": (
            f"Measured by the run that trained the weights: test clips of {tested}; {settings}. Errors are in "
            "millimetres, velocity in millimetres a frame; pck150, auc and temporal_std_ratio are shares."
        ),
        "training": recorded_training(stored, ema, f" on source `{data.source}` ({optim})"),
    }


def evaluate_trained(recipe: Recipe, path: str) -> dict[str, Any]:
    """Errors of a checkpoint or file of weights on the recipe's test clips, at every exit.

    Returns:
        ``weights`` (what was measured), ``clips``, ``unit`` (what the weights give; figures are in millimetres all the
        same), ``exits`` and, where there is an average, ``ema_exits``.

    Raises:
        LiftingDataError: The data cannot be read.
        CheckpointError: See :func:`load_trained`.
    """

    @cache
    def clips() -> list[Clip]:
        return open_clips(recipe.data, ("test",))[0]

    def measure(model: Lifter, accelerator: Any) -> tuple[Any, dict[str, Any]]:
        _check_rate(model, FRAME_RATES[recipe.data.source], recipe.data.source)
        figures = evaluate(
            model,
            clips(),
            settings=eval_settings(recipe),
            exits=wanted_exits(model, recipe.evaluate.exits),
            progress=recipe.run.progress and accelerator.is_main_process,
        )
        return figures, {"clips": len(clips()), "unit": model.convention.unit}

    return measure_trained(
        recipe,
        path,
        measure,
        load_trained=load_trained,
        stored_recipe=stored_recipe,
        measured_by=("model", "hourglass", "cyclic", "evaluate", "data.source", "data.frames", "data.confidence"),
    )


def _check_rate(model: Lifter, rate: float | None, source: str) -> None:
    trained = model.convention.frame_rate
    if trained is not None and rate is not None and not 0.9 < rate / trained < 1.1:
        _logger.warning(
            "the weights were trained on %g frames a second, the clips of %s have %g: their motion looks %.2g times as "
            "fast to the model",
            trained,
            source,
            rate,
            trained / rate,
        )
