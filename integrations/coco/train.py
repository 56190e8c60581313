"""Train a pose model on COCO, CrowdPose or any persons in their formats, from the command line or from Python.

    cycledistill train coco --config sdpose_s_v1 --data /data/coco --output runs/a
    cycledistill evaluate runs/a --data /data/coco
    accelerate launch --multi_gpu --num_processes 8 -m cycledistill.integrations.coco.train --config sdpose_s_v1 ...
    torchrun --nproc-per-node 8 -m cycledistill.integrations.coco.train --config sdpose_s_v1 ...

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
        ``step``, ``epoch``, ``finished``, ``exits`` and, with an average of the weights, ``ema_exits`` (exit -> AP, AR,
        ... of the last evaluation), ``skipped`` (persons of unreadable pictures), ``checkpoint`` (its folder) and
        ``best`` (that of the highest AP, None before an evaluation), ``seconds``.

    Raises:
        RecipeError: The recipe does not fit the model, or ``run.output`` holds another run.
        PoseDataError: The data set cannot be trained on.
        CheckpointError: The checkpoint cannot be gone on from, or cannot be written.
        NonFiniteLossError: The loss became nan or infinite; the weights were not updated by that step.

    Example:
        >>> recipe = load_recipe("sdpose_s_v1", ["data.root=/data/coco", "run.max_steps=200"])
        >>> train(recipe)["exits"][1]["AP"]
    """
    from cycledistill.recipes.run.loop import run_training

    from .training.session import Session

    return run_training(Session, recipe, resume)


COMMAND = Command(
    package="cycledistill.integrations.coco",
    help="train a pose model on COCO, CrowdPose or persons in their formats",
    requires="cycledistill[coco]",
    holds=("TokenPose", "TokenPoseConfig"),
    data=(
        Flag("--data", "data.root", "or zip file"),
        Flag("--results", "run.results", "folder for the poses that are measured, as COCO's results", word="FOLDER"),
    ),
)
EVALUATE = Evaluation(COMMAND, "AP of a pose model at every exit, on COCO, CrowdPose or persons in their formats")

main = COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
