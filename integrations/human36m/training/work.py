"""What a training step on windows is; the loop is ``cycledistill.recipes.run.loop``."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

from ..data.dataset import Batch
from ..evaluation.measure import evaluate
from .build import eval_settings
from .schedules import learning_rate
from .session import Session
from .task import to_device

_logger = logging.getLogger(__name__)


class LiftWork:
    """What a training step on windows is; the loop is ``cycledistill.recipes.run.loop``."""

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
                settings=eval_settings(recipe),
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
