"""The training loop of a run under Accelerate: steps, logs, checkpoints and evaluations, each when the recipe says."""

from __future__ import annotations

import logging
import time
from typing import Any, Protocol, TypeVar

from torch import Tensor

from cycledistill.recipes.run.accelerator import open_accelerator
from cycledistill.recipes.run.finite import finite_terms
from cycledistill.recipes.run.seeding import STEP, derive_seed, seed_all
from cycledistill.recipes.run.session import TrainingSession

_logger = logging.getLogger(__name__)

S = TypeVar("S", bound=TrainingSession, contravariant=True)
ADVICE = "Usually a lower optim.lr, optim.clip=1, or run.precision=bf16 or fp32 instead of fp16 helps."


class TrainingStep(Protocol[S]):
    """What a command does at each step; the loop does the rest."""

    measures: tuple[str, ...]
    """First letters of terms that are not losses: they go into the log's row as they are, not as means."""

    def prepare(self, session: S) -> tuple[float, dict[str, float]]:
        """Set all that is a function of the step; returns the learning rate and what else the log shall hold."""

    def terms(self, session: S, batch: Any, logs: bool) -> dict[str, Tensor]:
        """The forward: ``loss`` and its terms, with measures where ``logs`` says that this step is logged."""

    def evaluate(self, session: S) -> dict[str, Any]:
        """Measure the weights, log the figures and return them."""


def train_recipe(
    recipe: Any, session: type[TrainingSession], training_step: TrainingStep[Any], resume: str | None
) -> dict[str, Any]:
    """Run a recipe from beginning to end: what the ``train`` of every command does.

    Args:
        recipe: The command's.
        session: The command's, not yet started.
        training_step: What is particular to the command.
        resume: As for :meth:`TrainingSession.start`.

    Returns:
        What :func:`run_training` returns.
    """
    began = time.monotonic()
    with open_accelerator(recipe.run.device, recipe.run.precision) as accelerator:
        return run_training(session.start(recipe, accelerator, resume), training_step, began)


def run_training(session: S, training_step: TrainingStep[S], began: float) -> dict[str, Any]:
    """Train to the recipe's end, or to ``run.max_steps``.

    Args:
        session: A run, fresh or resumed.
        training_step: What is particular to the command.
        began: ``time.monotonic()`` at the start of the command.

    Returns:
        What the last evaluation returned, and ``step``, ``epoch``, ``finished``, ``skipped``, ``checkpoint`` (its
        folder), ``best`` (that of the best evaluation) and ``seconds``.

    Raises:
        NonFiniteLossError: The loss became nan or infinite; the weights were not updated by that step.
        CheckpointError: A checkpoint cannot be written.
    """
    recipe, measured = session.recipe, dict[str, Any]()
    while session.epoch < recipe.schedule.epochs and not session.stopped:
        _run_epoch(session, training_step, began)
        ends = session.epoch == recipe.schedule.epochs or session.stopped
        if ends or session.epoch % recipe.evaluate.every == 0:
            session.share_buffers()
            measured = {"step": session.step, **training_step.evaluate(session)}
        session.save(measured if measured.get("step") == session.step else None)
    if session.log:
        session.log.close()
    session.accelerator.wait_for_everyone()  # the checkpoint named below is complete
    return {
        **measured,
        "step": session.step,
        "epoch": session.epoch,
        "finished": session.epoch >= recipe.schedule.epochs,
        "skipped": session.skipped,
        "checkpoint": str(session.store.last()),
        "best": str(session.store.best()),
        "seconds": round(time.monotonic() - began, 1),
    }


def _run_epoch(session: S, training_step: TrainingStep[S], began: float) -> None:
    """Train to the end of the epoch, or to ``run.max_steps``."""
    from tqdm import tqdm  # comes with the integrations

    run, accelerator, length = session.recipe.run, session.accelerator, len(session.batches)
    session.batches.epoch, session.batches.start = session.epoch, session.batch
    session.wrapped.train()
    bar = tqdm(
        session.loader,
        desc=f"epoch {session.epoch}",
        total=length,
        initial=session.batch,
        disable=None if run.progress and accelerator.is_main_process else True,
    )
    for batch in bar:
        rate, extra = training_step.prepare(session)
        for group in session.optimizer.param_groups:
            group["lr"] = rate
        seed_all(derive_seed(run.seed, STEP, session.step, accelerator.process_index))
        logs = (session.step + 1) % run.log_every == 0
        terms = _train_step(session, training_step, batch, logs)
        measures = {name: terms.pop(name) for name in list(terms) if name.startswith(training_step.measures)}
        session.meter.add(terms)
        session.step, session.batch = session.step + 1, session.batch + 1
        bar.set_postfix(loss=f"{terms['loss']:.5f}", refresh=False)
        if logs and session.log:
            row = {**session.meter.take(), **measures, **extra, "seconds": round(time.monotonic() - began, 1)}
            session.log.write("train", step=session.step, epoch=session.epoch, lr=rate, **row)
        if session.batch >= length or session.stopped:
            break
        if run.save_every_steps and session.step % run.save_every_steps == 0:
            session.save()
    else:  # a stream may hold less than it said
        length = session.batch
    if session.batch >= length:
        session.epoch, session.batch = session.epoch + 1, 0


def _train_step(session: S, training_step: TrainingStep[S], batch: Any, logs: bool) -> dict[str, float]:
    """One optimiser step; returns the loss and its terms."""
    terms = training_step.terms(session, batch, logs)
    numbers = finite_terms(terms, session.position, session.store.last(), ADVICE)
    session.optimizer.zero_grad(set_to_none=True)
    session.accelerator.backward(terms["loss"])
    session.clip_gradients()
    session.optimizer.step()
    if session.ema:
        session.ema.update(session.task.model, step=session.step + 1)
    return numbers
