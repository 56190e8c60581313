r"""Train a lifting model on Human3.6M, CMU or generated motion, from the command line or from Python.

    python -m cycledistill.integrations.human36m.train --config frame_token_small --output runs/a      # needs no data
    python -m cycledistill.integrations.human36m.train --config hot_mixste --pose-3d data_3d_h36m.npz \
        --pose-2d data_2d_h36m_cpn_ft_h36m_dbb.npz --cameras cameras.json --output runs/b
    accelerate launch --multi_gpu --num_processes 4 -m cycledistill.integrations.human36m.train --config hot_mixste ...
    python -m cycledistill.integrations.human36m.train --evaluate runs/a

A run that was stopped or killed goes on, bit for bit, with ``--resume auto``.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from typing import Any

from cycledistill.recipes.run.command import RUN_FLAGS, Command
from cycledistill.recipes.run.engine import engine
from cycledistill.recipes.run.loop import run_training

from .errors import LiftingDataError
from .recipe import Recipe, list_recipes, load_recipe
from .training.session import start
from .training.work import LiftWork

_logger = logging.getLogger(__name__)


def train(recipe: Recipe, resume: str | None = None) -> dict[str, Any]:
    """Run a recipe to its end, or to ``run.max_steps``; logs and checkpoints go to ``run.output``.

    Args:
        recipe: From ``load_recipe``.
        resume: A run's folder, a checkpoint, or ``"auto"`` for the last one under ``run.output``, if any.

    Returns:
        ``step``, ``epoch``, ``finished``, ``exits`` and, with an average of the weights, ``ema_exits`` (exit -> figures
        of the last evaluation, see ``MotionScores.summary``), ``checkpoint`` (its folder), ``seconds``.

    Raises:
        RecipeError: The recipe does not fit the model, or ``run.output`` holds another run.
        LiftingDataError: The data cannot be trained on.
        CheckpointError: The checkpoint cannot be gone on from, or cannot be written.
        NonFiniteLossError: The loss became nan or infinite; the weights were not updated by that step.

    Example:
        >>> recipe = load_recipe("frame_token_small", ["run.max_steps=200"])
        >>> train(recipe)["exits"][1]["mpjpe_frame_mean"]
    """
    began = time.monotonic()
    with engine(recipe.run.device, recipe.run.precision) as accelerator:
        summary = run_training(start(recipe, accelerator, resume), LiftWork(), began)
    # nothing to skip, and no data to choose a best checkpoint on that is not the test set
    return {name: value for name, value in summary.items() if name not in ("skipped", "best")}


FLAGS = {
    "--source": ("data.source", str, "generated, cmu or h36m"),
    "--pose-3d": ("data.pose_3d", str, "npz of 3D poses, Human3.6M"),
    "--pose-2d": ("data.pose_2d", str, "npz of 2D keypoints, Human3.6M"),
    "--cameras": ("data.cameras", str, "JSON of cameras, Human3.6M"),
    "--motion": ("data.motion", str, "npz of 3D motion, CMU"),
    "--model": ("model.name", str, "name of a lifting model"),
    "--cycles": ("cyclic.cycles", int, "cycles while training"),
    "--frames": ("data.frames", int, "frames of a window"),
    "--batch-size": ("data.batch_size", int, "windows a process and step"),
    **RUN_FLAGS,
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command: train, resume or evaluate; the summary goes to standard output as JSON."""
    return Command(
        name="cycledistill.integrations.human36m.train",
        description="Train or evaluate a model that lifts 2D keypoints to 3D poses.",
        flags=FLAGS,
        load=load_recipe,
        recipes=list_recipes,
        train=_train,
        evaluate=_evaluate,
        stored=_stored,
        errors=(LiftingDataError,),
    ).main(argv)


def _train(recipe: Recipe, resume: str | None) -> dict[str, Any]:
    return train(recipe, resume)


def _evaluate(recipe: Recipe, path: str) -> dict[str, Any]:
    from .trained import evaluate_trained

    return evaluate_trained(recipe, path)


def _stored(path: str) -> Recipe:
    from .trained import stored_recipe

    return stored_recipe(path)


if __name__ == "__main__":
    sys.exit(main())
