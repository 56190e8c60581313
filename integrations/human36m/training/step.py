"""What a training step on windows is; the loop is ``cycledistill.recipes.run.loop``."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cycledistill.recipes.run.session import Figures

from ..data.dataset import Batch
from ..evaluation.measure import evaluate
from .build import eval_settings
from .schedules import learning_rate
from .session import Session
from .task import to_device


class LiftStep:
    """What a training step on windows is; the loop is ``cycledistill.recipes.run.loop``."""

    measures: tuple[str, ...] = ()

    def prepare(self, session: Session) -> tuple[float, dict[str, float]]:
        """The learning rate."""
        recipe = session.recipe
        return learning_rate(session.step, len(session.batches), recipe.optim.lr, recipe.schedule), {}

    def terms(self, session: Session, batch: Batch, logs: bool) -> dict[str, Tensor]:
        """The loss of a batch and its terms."""
        terms: dict[str, Tensor] = session.wrapped(*to_device(batch, session.accelerator.device))
        return terms

    def evaluate(self, session: Session) -> dict[str, Any]:
        """Errors at every exit, of the weights and of their average; logged."""
        recipe = session.recipe

        def measured(model: Any) -> Figures:
            return evaluate(
                model,
                session.validation,
                settings=eval_settings(recipe),
                exits=session.exits,
                progress=recipe.run.progress and session.accelerator.is_main_process,
            )

        def tell(name: str, figures: Figures) -> str:
            return "; ".join(f"{name}, exit {exit}: {describe(found)}" for exit, found in figures.items())

        return session.measure(measured, tell)


def describe(found: dict[str, Any]) -> str:
    """The figures of an evaluation in a line: the error never without how much the predictions move."""
    velocity, ratio = found["velocity_frame_mean"], found["temporal_std_ratio_frame_mean"]
    return (
        f"MPJPE {found['mpjpe_frame_mean']:.1f} mm over frames, {found['mpjpe_action_mean']:.1f} mm over actions; "
        f"P-MPJPE {found['p_mpjpe_frame_mean']:.1f} mm; "
        + ("no velocity (single frames); " if velocity is None else f"velocity {velocity:.2f} mm a frame; ")
        + ("no temporal std (no motion)" if ratio is None else f"temporal std {ratio:.2f} of the truth's")
    )
