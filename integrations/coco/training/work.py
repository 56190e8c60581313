"""What a training step on persons is; the loop is ``cycledistill.recipes.run.loop``."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

from ..data.dataset import Batch
from ..data.images import PoseDataError
from ..evaluation.measure import evaluate
from .build import eval_settings
from .schedules import keep_fraction, learning_rate
from .session import Session
from .task import to_device

_logger = logging.getLogger(__name__)


class PoseWork:
    """What a training step on persons is; the loop is ``cycledistill.recipes.run.loop``."""

    measures: tuple[str, ...] = ("token_rms_", "token_task_ratio_")

    def prepare(self, session: Session) -> tuple[float, dict[str, float]]:
        """Set the fraction of tokens kept; the rate and that fraction are functions of the step."""
        recipe, length = session.recipe, len(session.batches)
        kept = {}
        if session.keep is not None:
            kept["keep"] = keep_fraction(session.step, length, session.keep, recipe.prune)
            session.model.pruning.keep = kept["keep"]  # type: ignore[union-attr]
        return learning_rate(session.step, length, recipe.optim.lr, recipe.schedule), kept

    def terms(self, session: Session, batch: Batch, logs: bool) -> dict[str, Tensor]:
        """The loss of a batch and its terms."""
        _count_skipped(session, batch)
        session.task.measures = logs
        terms: dict[str, Tensor] = session.trainee(*to_device(batch, session.accelerator.device))
        return terms

    def evaluate(self, session: Session) -> dict[str, Any]:
        """AP at every exit, of the weights and of their average; logged."""
        return _evaluate(session)


def _count_skipped(session: Session, batch: Batch) -> None:
    """Count the persons of unreadable pictures; a batch is empty only where no picture at all could be read."""
    session.skipped += batch["skipped"]
    if not len(batch["person"]):
        raise PoseDataError(f"at {session.place} no picture at all could be read any more; check data.train_images")


def _evaluate(session: Session) -> dict[str, Any]:
    """AP at every exit, of the weights and of their average; logged."""
    recipe, accelerator, validation = session.recipe, session.accelerator, session.validation
    measured: dict[str, Any] = {}
    averaged = [("ema", "ema_exits", session.ema.module)] if session.ema else []
    for name, key, model in [("model", "exits", session.model), *averaged]:
        if session.keep is not None:
            model.pruning.keep = session.keep
        measured[key] = evaluate(
            model,
            validation.persons,
            validation.images,
            recipe.data.joint_set,
            validation.truth,
            exits=session.exits,
            settings=eval_settings(recipe),
            progress=recipe.run.progress and accelerator.is_main_process,
        )
        boxes = "annotated" if recipe.data.detections is None else "detected"
        flat = {f"{metric}@{exit}": value for exit, found in measured[key].items() for metric, value in found.items()}
        if session.log:
            session.log.write("eval", step=session.step, epoch=session.epoch, weights=name, boxes=boxes, **flat)
        shown = ", ".join(f"{found['AP']:.4f} at exit {exit}" for exit, found in measured[key].items())
        _logger.info("step %d, %s, %s boxes: AP %s", session.step, name, boxes, shown)
    return measured
