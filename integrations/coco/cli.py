"""The command line of training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cycledistill.recipes.command import RUN_FLAGS, Command

from .images import PoseDataError
from .recipe import Recipe, list_recipes, load_recipe

_FLAGS = {
    "--data-root": ("data.root", str, "folder or zip file of the data set"),
    "--model": ("model.name", str, "name of a pose model"),
    "--cycles": ("cyclic.cycles", int, "cycles while training"),
    "--batch-size": ("data.batch_size", int, "persons a process and step"),
    **RUN_FLAGS,
}


def _train(recipe: Recipe, resume: str | None) -> dict[str, Any]:
    from .train import train  # late, as below: --help needs neither

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
