"""The command line of training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cycledistill.recipes.command import RUN_FLAGS, Command

from .errors import LiftingDataError
from .recipe import Recipe, list_recipes, load_recipe

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
    from .train import train  # late, as below: --help needs neither

    return train(recipe, resume)


def _evaluate(recipe: Recipe, path: str) -> dict[str, Any]:
    from .trained import evaluate_trained

    return evaluate_trained(recipe, path)


def _stored(path: str) -> Recipe:
    from .trained import stored_recipe

    return stored_recipe(path)
