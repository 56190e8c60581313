"""What a training step on images is; the loop is ``cycledistill.recipes.run.loop``."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

from ..evaluation.accuracy import evaluate
from .session import Session

_logger = logging.getLogger(__name__)


class ImageWork:
    """What a training step on images is; the loop is ``cycledistill.recipes.run.loop``."""

    measures: tuple[str, ...] = ()

    def prepare(self, session: Session) -> tuple[float, dict[str, float]]:
        """Set drop path; it and the rate are functions of the step."""
        return session.schedule.set(session.epoch, session.batch), {}

    def terms(self, session: Session, batch: tuple[Tensor, Tensor], logs: bool) -> dict[str, Tensor]:
        """The loss of a batch and its terms; mixup and cutmix happen here, on the device."""
        images, target = (tensor.to(session.accelerator.device, non_blocking=True) for tensor in batch)
        if session.mixup is not None:
            images, target = session.mixup(images, target)
        terms: dict[str, Tensor] = session.trainee(images, target)
        return {name: term for name, term in terms.items() if name != "output"}

    def evaluate(self, session: Session) -> dict[str, Any]:
        """Accuracy at every exit, of the weights and of their average; logged."""
        run, measured = session.recipe.run, dict[str, Any]()
        averaged = [("ema", "ema_exits", session.ema.module)] if session.ema else []
        for name, key, model in [("model", "exits", session.model), *averaged]:
            shown = run.progress and session.accelerator.is_main_process
            exits = evaluate(model, session.validation, session.exits, precision=run.precision, progress=shown)
            measured[key] = exits
            flat = {f"{metric}@{exit}": value for exit, found in exits.items() for metric, value in found.items()}
            if session.log:
                session.log.write("eval", step=session.step, epoch=session.epoch, weights=name, **flat)
            accuracy = ", ".join(f"{found['top1']:.2f} at exit {exit}" for exit, found in exits.items())
            _logger.info("step %d, %s: top-1 %s", session.step, name, accuracy)
        return measured
