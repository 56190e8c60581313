"""The training loop of a run under Accelerate: steps, logs, checkpoints and evaluations, each when the recipe says."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

from cycledistill.inert import named_as_keys
from cycledistill.recipes.errors import NonFiniteLossError
from cycledistill.recipes.progress import Pace, open_bar
from cycledistill.recipes.run.accelerator import open_accelerator
from cycledistill.recipes.run.batches import received
from cycledistill.recipes.run.graph.start import create_step
from cycledistill.recipes.run.guard.lock import run_lock
from cycledistill.recipes.run.guard.signals import held
from cycledistill.recipes.run.guard.vote import StopVote
from cycledistill.recipes.run.seeding import STEP, derive_seed, seed_all
from cycledistill.recipes.run.session import TrainingSession
from cycledistill.recipes.run.step import Step

_logger = logging.getLogger(__name__)


def run_training(kind: type[TrainingSession], recipe: Any, resume: str | None) -> dict[str, Any]:
    """Train to the recipe's end, or to ``run.max_steps``.

    Returns:
        What the last evaluation returned, and ``step``, ``epoch``, ``finished``, ``skipped``, ``checkpoint`` (its
        folder), ``best`` (that of the best evaluation) and ``seconds``. A folder that is not there is None.

    Raises:
        RecipeError: The recipe does not fit the model or this machine, or ``run.output`` holds another run.
        NonFiniteLossError: The loss became nan or infinite; the weights were not updated by that step.
        CheckpointError: A checkpoint cannot be gone on from, or cannot be written.
        StopRequest: A signal asked the run to stop, which a command listens to (`guard.signals`); it was saved first.
    """
    began, measured = time.monotonic(), dict[str, Any]()
    with (
        named_as_keys("cyclic.distill."),
        open_accelerator(
            recipe.run.device, recipe.run.precision, log_with=recipe.run.log_with, folder=recipe.run.output
        ) as accelerator,
        run_lock(Path(recipe.run.output), writes=accelerator.is_main_process) as lock,
    ):
        accelerator.wait_for_everyone()  # nobody looks for a checkpoint while another run may still write one
        session = kind.start(recipe, accelerator, resume)
        session.lock = lock
        step, vote, pace = create_step(session), StopVote(accelerator), _pace(session)
        session.look_at_validation()
        if session.owes_evaluation:
            measured = session.evaluate_saved()
        pace.begin(session.step)
        while session.epoch < recipe.schedule.epochs and not session.stopped:
            with held():
                _run_epoch(session, step, vote, began, pace)
                if session.evaluation_due:
                    session.share_buffers()  # they are saved as they are measured
                session.save()
                vote.settle()
            if session.evaluation_due:
                with pace.paused():
                    measured = session.evaluate_saved()
        for tracker in accelerator.trackers:
            tracker.finish()
        accelerator.wait_for_everyone()  # the checkpoint named below is complete
    return {
        **measured,
        "step": session.step,
        "epoch": session.epoch,
        "finished": session.epoch >= recipe.schedule.epochs,
        "skipped": session.skipped,
        "checkpoint": _folder(session.store.last()),
        "best": _folder(session.store.best()),
        "seconds": round(time.monotonic() - began, 1),
    }


def _folder(path: Path | None) -> str | None:
    """A checkpoint's folder as a summary in JSON has it."""
    return None if path is None else str(path)


def _pace(session: TrainingSession) -> Pace:
    """How far the run goes, told before it starts: its first line of a log, where there is no bar yet."""
    run, length = session.recipe.run, session.recipe.schedule.epochs * len(session.batches)
    pace = Pace(min(length, run.max_steps or length), session.unit, session.per_step)
    if session.log:
        each = f"{session.per_step} {session.unit} each, epoch {session.epoch} of {session.recipe.schedule.epochs}"
        _logger.info("steps %d to %d of %s; log in %s", session.step, pace.last, each, run.output)
    return pace


def _run_epoch(session: TrainingSession, step: Step, vote: StopVote, began: float, pace: Pace) -> None:
    """Train to the end of the epoch, to ``run.max_steps``, or until the processes are asked to stop."""
    run, accelerator, length = session.recipe.run, session.accelerator, len(session.batches)
    session.batches.epoch, session.batches.start = session.epoch, session.batch
    session.wrapped.train()
    shown = run.progress and accelerator.is_main_process
    bar = open_bar(session.loader, f"epoch {session.epoch}", shown=shown, total=length, initial=session.batch)
    for batch in received(bar):
        vote.cast()
        rate, extra = session.prepare()
        step.set_rate(rate)
        seed_all(derive_seed(run.seed, STEP, session.step, accelerator.process_index))
        logs = (session.step + 1) % run.log_every == 0
        terms = _train_step(session, step, batch, logs)
        measures = {name: terms.pop(name) for name in list(terms) if name.startswith(session.measures)}
        session.meter.add(terms)
        session.step, session.batch = session.step + 1, session.batch + 1
        bar.set_postfix(loss=f"{terms['loss']:.5f}", refresh=False)
        ends = session.stopped or (session.epoch + 1 >= session.recipe.schedule.epochs and session.batch >= length)
        if (logs or ends) and session.log:
            session.check_lock()  # rows of two runs would stand among each other
            means = session.meter.take() if logs else session.meter.means()  # a run that goes on logs the same means
            row = {**means, **measures, **extra, "seconds": round(time.monotonic() - began, 1)}
            session.log.write("train", step=session.step, epoch=session.epoch, lr=rate, **row)
            if bar.disable and run.progress:
                told = (session.step, pace.last, session.epoch, means["loss"], rate, pace.line(session.step))
                _logger.info("step %d of %d (epoch %d): loss %.5g, lr %.3g, %s", *told)
        asked = vote.count() is not None
        if session.batch >= length or session.stopped or asked:
            break
        if run.save_every_steps and session.step % run.save_every_steps == 0:
            session.save()
    else:  # a stream may hold less than it said
        length = session.batch
    if session.batch >= length:
        session.epoch, session.batch = session.epoch + 1, 0


def _train_step(session: TrainingSession, step: Step, batch: Any, logs: bool) -> dict[str, float]:
    """One optimiser step, unless its loss is no number; returns the loss and its terms."""
    numbers = step.gradients(session.inputs(batch), logs).numbers()
    if not math.isfinite(numbers["loss"]):
        guilty = ", ".join(name for name, value in numbers.items() if not math.isfinite(value) and name != "loss")
        raise NonFiniteLossError(
            f"the loss is {numbers['loss']} at {session.position}; not finite: {guilty or 'only their sum'}; "
            f"all terms: {numbers}. The weights were not updated by this step; {session.store.last_in_words()}. "
            "Usually a lower optim.lr, optim.clip=1, or run.precision=bf16 or fp32 instead of fp16 helps."
        )
    step.update(session.step + 1)
    return numbers
