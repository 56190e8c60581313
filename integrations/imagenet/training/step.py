"""What a training step on images is; the loop is ``cycledistill.recipes.run.loop``."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cycledistill.recipes.run.session import Figures

from ..evaluation.accuracy import evaluate
from .session import Session


class ImageStep:
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
        terms: dict[str, Tensor] = session.wrapped(images, target)
        return {name: term for name, term in terms.items() if name != "output"}

    def evaluate(self, session: Session) -> dict[str, Any]:
        """Accuracy at every exit, of the weights and of their average; logged."""
        run = session.recipe.run

        def measured(model: Any) -> Figures:
            shown = run.progress and session.accelerator.is_main_process
            return evaluate(model, session.validation, session.exits, precision=run.precision, progress=shown)

        def tell(name: str, figures: Figures) -> str:
            return f"{name}: top-1 " + ", ".join(f"{found['top1']:.2f} at exit {n}" for n, found in figures.items())

        return session.measure(measured, tell)
