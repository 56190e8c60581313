r"""Train a lifting model on Human3.6M, MPI-INF-3DHP, CMU or generated motion, from the command line or from Python.

    cycledistill train human36m --config frame_token_small --output runs/a      # needs no data
    cycledistill train human36m --config hot_mixste --pose-3d data_3d_h36m.npz \
        --pose-2d data_2d_h36m_cpn_ft_h36m_dbb.npz --calibration cameras.json --output runs/b
    cycledistill evaluate runs/a
    accelerate launch --multi_gpu --num_processes 4 -m cycledistill.integrations.human36m.train --config hot_mixste ...

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
    from cycledistill.recipes.run.loop import run_training

    from .training.session import Session

    summary = run_training(Session, recipe, resume)
    # nothing to skip, and no data to choose a best checkpoint on that is not the test set
    return {name: value for name, value in summary.items() if name not in ("skipped", "best")}


COMMAND = Command(
    package="cycledistill.integrations.human36m",
    help="train a model that lifts 2D keypoints to 3D poses",
    requires="cycledistill[human36m]",
    holds=(
        "FrameLifter",
        "FrameLifterConfig",
        "MHFormer",
        "MHFormerConfig",
        "MixSTE",
        "MixSTEConfig",
        "MotionBERT",
        "MotionBERTConfig",
    ),
    data=(
        Flag(
            "--dataset",
            "data.source",
            "generated, cmu, h36m or 3dhp",
            advice="Files have flags of their own: --motion (cmu), --pose-3d, --pose-2d and --calibration (h36m), or "
            "--train-data and --test-data (3dhp).",
        ),
        Flag("--pose-3d", "data.pose_3d", "npz of 3D poses, Human3.6M", word="FILE"),
        Flag("--pose-2d", "data.pose_2d", "npz of 2D keypoints, Human3.6M", word="FILE"),
        Flag("--calibration", "data.calibration", "JSON, Human3.6M"),
        Flag("--train-data", "data.train_data", "npz, MPI-INF-3DHP"),
        Flag("--test-data", "data.test_data", "npz or folder, MPI-INF-3DHP"),
        Flag("--motion", "data.motion", "npz of 3D motion, CMU", word="FILE"),
        Flag("--frames", "data.frames", "frames of a window", int, word="FRAMES"),
    ),
)
EVALUATE = Evaluation(COMMAND, "errors of a model that lifts 2D keypoints to 3D poses, at every exit")

main = COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
