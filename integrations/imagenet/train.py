"""Train a timm classifier with cycles, from the command line or from Python.

    cycledistill train imagenet --data /data/imagenet --config deit_tiny --output runs/a
    cycledistill evaluate runs/a --data /data/imagenet
    torchrun --nproc-per-node 4 -m cycledistill.integrations.imagenet.train --data /data/imagenet --output runs/a
    accelerate launch --multi_gpu --num_processes 4 -m cycledistill.integrations.imagenet.train --data ...

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
        ``step``, ``epoch``, ``finished``, ``exits`` and, with an average of the weights, ``ema_exits`` (exit -> top1,
        top5, loss of the last evaluation), ``checkpoint`` (its folder) and ``best`` (that of the highest top-1
        accuracy, None before an evaluation), ``seconds``.

    Raises:
        RecipeError: The recipe does not fit the model, or ``run.output`` holds another run.
        DataError: The images cannot be trained on.
        CheckpointError: The checkpoint cannot be gone on from, or cannot be written.
        NonFiniteLossError: The loss became nan or infinite; the weights were not updated by that step.

    Example:
        >>> train(load_recipe("cpu_96", ["data.dir=imagenette", "run.max_steps=200"]))["exits"][1]["top1"]
    """
    from cycledistill.recipes.run.loop import run_training

    from .training.session import Session

    return run_training(Session, recipe, resume)


COMMAND = Command(
    package="cycledistill.integrations.imagenet",
    help="train a timm classifier with cycles, on ImageNet or on any folder of images",
    requires="cycledistill[imagenet]",
    data=(Flag("--data", "data.dir", "with the splits: class folders, .tar or Parquet files"),),
    holds=("timm",),
)
EVALUATE = Evaluation(COMMAND, "accuracy of a timm classifier at every exit, on ImageNet or on any folder of images")

main = COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
