"""Train a pose model on COCO, CrowdPose or any persons in their formats, from the command line or from Python.

    python -m cycledistill.integrations.coco.train --config sdpose_s_v1 --data-root /data/coco --output runs/a
    accelerate launch --multi_gpu --num_processes 8 -m cycledistill.integrations.coco.train --config sdpose_s_v1 ...
    torchrun --nproc-per-node 8 -m cycledistill.integrations.coco.train --config sdpose_s_v1 ...
    python -m cycledistill.integrations.coco.train --evaluate runs/a --data-root /data/coco

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

from .data.images import PoseDataError
from .recipe import Recipe, list_recipes, load_recipe
from .training.session import start
from .training.work import PoseWork

_logger = logging.getLogger(__name__)


def train(recipe: Recipe, resume: str | None = None) -> dict[str, Any]:
    """Run a recipe to its end, or to ``run.max_steps``; logs and checkpoints go to ``run.output``.

    Args:
        recipe: From ``load_recipe``.
        resume: A run's folder, a checkpoint, or ``"auto"`` for the last one under ``run.output``, if any.

    Returns:
        ``step``, ``epoch``, ``finished``, ``exits`` and, with an average of the weights, ``ema_exits`` (exit -> AP, AR,
        ... of the last evaluation), ``skipped`` (persons of unreadable pictures), ``checkpoint`` (its folder) and
        ``best`` (that of the highest AP), ``seconds``.

    Raises:
        RecipeError: The recipe does not fit the model, or ``run.output`` holds another run.
        PoseDataError: The data set cannot be trained on.
        CheckpointError: The checkpoint cannot be gone on from, or cannot be written.
        NonFiniteLossError: The loss became nan or infinite; the weights were not updated by that step.

    Example:
        >>> recipe = load_recipe("sdpose_s_v1", ["data.root=/data/coco", "run.max_steps=200"])
        >>> train(recipe)["exits"][1]["AP"]
    """
    began = time.monotonic()
    with engine(recipe.run.device, recipe.run.precision) as accelerator:
        return run_training(start(recipe, accelerator, resume), PoseWork(), began)


_FLAGS = {
    "--data-root": ("data.root", str, "folder or zip file of the data set"),
    "--model": ("model.name", str, "name of a pose model"),
    "--cycles": ("cyclic.cycles", int, "cycles while training"),
    "--batch-size": ("data.batch_size", int, "persons a process and step"),
    **RUN_FLAGS,
}


def _train(recipe: Recipe, resume: str | None) -> dict[str, Any]:
    return train(recipe, resume)


def _evaluate(recipe: Recipe, path: str) -> dict[str, Any]:
    from .trained import evaluate_trained

    return evaluate_trained(recipe, path)


def _stored(path: str) -> Recipe:
    from .trained import stored_recipe

    return stored_recipe(path)


COMMAND = Command(
    name="cycledistill.integrations.coco.train",
    description="Train or evaluate a pose model on COCO, CrowdPose or persons in their formats.",
    flags=_FLAGS,
    load=load_recipe,
    recipes=list_recipes,
    train=_train,
    evaluate=_evaluate,
    stored=_stored,
    errors=(PoseDataError,),
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command: train, resume or evaluate; the summary goes to standard output as JSON."""
    return COMMAND.main(argv)


if __name__ == "__main__":
    sys.exit(main())
