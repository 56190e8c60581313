"""Which step a run takes: eager, or captured in graphs where the recipe asks for it and the run can have it."""

from __future__ import annotations

import logging

from cycledistill.recipes.errors import NotCapturableError
from cycledistill.recipes.run.graph.capture import open_capture
from cycledistill.recipes.run.graph.replay import GraphedStep
from cycledistill.recipes.run.session import TrainingSession
from cycledistill.recipes.run.step import EagerStep, Step

_logger = logging.getLogger(__name__)


def create_step(session: TrainingSession) -> Step:
    """The step of a run that was put together; where it asks for graphs and cannot have them, a warning says why."""
    eager = EagerStep(
        session.task,
        session.optimizer,
        session.terms,
        backward=session.accelerator.backward,
        clip=session.clip_gradients,
        ema=session.ema,
        model=session.model,
    )
    if session.recipe.run.compile != "graph":
        return eager
    try:
        return GraphedStep(eager, open_capture(session.accelerator), session.batches.batch_size)
    except NotCapturableError as error:
        _logger.warning("run.compile=graph: the steps run eagerly: %s", error)
        return eager
