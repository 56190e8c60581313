r"""Train a multi-view pose model on pictures of several calibrated cameras, from the command line or from Python.

    cycledistill train multiview --config small_generated --output runs/a      # needs no data
    cycledistill train multiview --config ppt --data Human36M --output runs/b
    cycledistill train multiview --config ppt --dataset folders --train-data recordings/train \
        --test-data recordings/test --output runs/c
    cycledistill evaluate runs/a
    accelerate launch --multi_gpu --num_processes 4 -m cycledistill.integrations.multiview.train --config ppt ...

A run that was stopped or killed goes on, bit for bit, with ``--resume auto``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from cycledistill.recipes.commands.evaluation import Evaluation
from cycledistill.recipes.run.command import Command, Flag

if TYPE_CHECKING:
    from .recipe import Recipe


def train(recipe: Recipe, resume: str | None = None) -> dict[str, Any]:
    """Run a recipe to its end, or to ``run.max_steps``; logs and checkpoints go to ``run.output``.

    Args:
        recipe: From ``load_recipe``.
        resume: A run's folder, a checkpoint, or ``"auto"`` for the last one under ``run.output``, if any.

    Returns:
        ``step``, ``epoch``, ``finished``, ``exits`` and, with an average of the weights, ``ema_exits`` (exit -> figures
        of the last evaluation, see `evaluation.measure.evaluate`), ``checkpoint`` (its folder), ``seconds``.

    Raises:
        RecipeError: The recipe does not fit the model or the data, or ``run.output`` holds another run.
        DataError: The data cannot be trained on.
        CheckpointError: The checkpoint cannot be gone on from, or cannot be written.
        NonFiniteLossError: The loss became nan or infinite; the weights were not updated by that step.

    Example:
        >>> recipe = load_recipe("small_generated", ["run.max_steps=200"])
        >>> train(recipe)["exits"][1]["jdr"]
    """
    from cycledistill.recipes.run.loop import run_training

    from .training.session import Session

    summary = run_training(Session, recipe, resume)
    # nothing to skip, and no data to choose a best checkpoint on that is not the test set
    return {name: value for name, value in summary.items() if name not in ("skipped", "best")}


COMMAND = Command(
    package="cycledistill.integrations.multiview",
    help="train a pose model on pictures of several calibrated cameras",
    requires="cycledistill[coco,human36m]",
    holds=("MultiViewPPT", "MultiViewConfig"),
    data=(
        Flag(
            "--dataset",
            "data.source",
            "generated, folders or human36m",
            advice="Folders have flags of their own: --data (human36m), or --train-data and --test-data (folders).",
        ),
        Flag("--data", "data.root", "images and annotations of Human3.6M"),
        Flag("--train-data", "data.train", "a recording, or a folder of recordings"),
        Flag("--test-data", "data.test", "the same"),
        Flag("--calibration", "data.calibration", "of recordings that have none of their own"),
        Flag("--unit", "data.unit"),
    ),
)
EVALUATE = Evaluation(COMMAND, "errors of a multi-view pose model at every exit")

main = COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
