"""What a training step on persons is; the loop is ``cycledistill.recipes.run.loop``."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cycledistill.recipes.run.session import Figures

from ..data.dataset import Batch
from ..data.images import PoseDataError
from ..evaluation.measure import evaluate
from .build import eval_settings
from .schedules import keep_fraction, learning_rate
from .session import Session
from .task import to_device


class PoseStep:
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
        terms: dict[str, Tensor] = session.wrapped(*to_device(batch, session.accelerator.device))
        return terms

    def evaluate(self, session: Session) -> dict[str, Any]:
        """AP at every exit, of the weights and of their average; logged."""
        recipe, validation = session.recipe, session.validation
        boxes = "annotated" if recipe.data.detections is None else "detected"

        def measured(model: Any) -> Figures:
            if session.keep is not None:
                model.pruning.keep = session.keep
            return evaluate(
                model,
                validation.persons,
                validation.images,
                recipe.data.joint_set,
                validation.truth,
                exits=session.exits,
                settings=eval_settings(recipe),
                progress=recipe.run.progress and session.accelerator.is_main_process,
            )

        def tell(name: str, figures: Figures) -> str:
            shown = ", ".join(f"{found['AP']:.4f} at exit {exit}" for exit, found in figures.items())
            return f"{name}, {boxes} boxes: AP {shown}"

        return session.measure(measured, tell, boxes=boxes)


def _count_skipped(session: Session, batch: Batch) -> None:
    """Count the persons of unreadable pictures; a batch is empty only where no picture at all could be read."""
    session.skipped += batch["skipped"]
    if not len(batch["person"]):
        raise PoseDataError(f"at {session.position} no picture at all could be read any more; check data.train_images")
