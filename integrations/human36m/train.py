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
from typing import Any

from torch import Tensor

from cycledistill.recipes.engine import engine
from cycledistill.recipes.loop import run_training

from .build import protocol_of
from .dataset import Batch
from .measure import evaluate
from .recipe import Recipe
from .schedules import learning_rate
from .session import Session, start
from .task import to_device

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
        ConfigError: The recipe does not fit the model, or ``run.output`` holds another run.
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


class LiftWork:
    """What a training step on windows is; the loop is ``cycledistill.recipes.loop``."""

    measures: tuple[str, ...] = ()

    def prepare(self, session: Session) -> tuple[float, dict[str, float]]:
        """The learning rate."""
        recipe = session.recipe
        return learning_rate(session.step, len(session.batches), recipe.optim.lr, recipe.schedule), {}

    def terms(self, session: Session, batch: Batch, logs: bool) -> dict[str, Tensor]:
        """The loss of a batch and its terms."""
        terms: dict[str, Tensor] = session.trainee(*to_device(batch, session.accelerator.device))
        return terms

    def evaluate(self, session: Session) -> dict[str, Any]:
        """Errors at every exit, of the weights and of their average; logged."""
        recipe, measured = session.recipe, dict[str, Any]()
        averaged = [("ema", "ema_exits", session.ema.module)] if session.ema else []
        for name, key, model in [("model", "exits", session.task.model), *averaged]:
            measured[key] = evaluate(
                model,
                session.validation,
                protocol=protocol_of(recipe),
                exits=session.exits,
                progress=recipe.run.progress and session.accelerator.is_main_process,
            )
            flat = {
                f"{metric}@{exit}": value
                for exit, found in measured[key].items()
                for metric, value in found.items()
                if isinstance(value, (int, float))
            }
            if session.log:
                session.log.write("eval", step=session.step, epoch=session.epoch, weights=name, **flat)
            for exit, found in measured[key].items():
                _logger.info("step %d, %s, exit %d: %s", session.step, name, exit, describe(found))
        return measured


def describe(found: dict[str, Any]) -> str:
    """The figures of an evaluation in a line: the error never without how much the predictions move."""
    velocity, ratio = found["velocity_frame_mean"], found["temporal_std_ratio_frame_mean"]
    return (
        f"MPJPE {found['mpjpe_frame_mean']:.1f} mm over frames, {found['mpjpe_action_mean']:.1f} mm over actions; "
        f"P-MPJPE {found['p_mpjpe_frame_mean']:.1f} mm; "
        + ("no velocity (single frames); " if velocity is None else f"velocity {velocity:.2f} mm a frame; ")
        + ("no temporal std (no motion)" if ratio is None else f"temporal std {ratio:.2f} of the truth's")
    )


if __name__ == "__main__":
    from .cli import main

    sys.exit(main())
