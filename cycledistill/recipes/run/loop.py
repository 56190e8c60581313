"""The training loop of a run under Accelerate: steps, logs, checkpoints and evaluations, each when the recipe says."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from cycledistill.recipes.errors import NonFiniteLossError
from cycledistill.recipes.run.accelerator import open_accelerator
from cycledistill.recipes.run.graph.start import create_step
from cycledistill.recipes.run.seeding import STEP, derive_seed, seed_all
from cycledistill.recipes.run.session import TrainingSession
from cycledistill.recipes.run.step import Step
from cycledistill.versions import require


def run_training(kind: type[TrainingSession], recipe: Any, resume: str | None) -> dict[str, Any]:
    """Train to the recipe's end, or to ``run.max_steps``.

    Returns:
        What the last evaluation returned, and ``step``, ``epoch``, ``finished``, ``skipped``, ``checkpoint`` (its
        folder), ``best`` (that of the best evaluation) and ``seconds``. A folder that is not there is None.

    Raises:
        RecipeError: The recipe does not fit the model or this machine, or ``run.output`` holds another run.
        NonFiniteLossError: The loss became nan or infinite; the weights were not updated by that step.
        CheckpointError: A checkpoint cannot be gone on from, or cannot be written.
    """
    began, measured = time.monotonic(), dict[str, Any]()
    with open_accelerator(recipe.run.device, recipe.run.precision) as accelerator:
        session = kind.start(recipe, accelerator, resume)
        step = create_step(session)
        while session.epoch < recipe.schedule.epochs and not session.stopped:
            _run_epoch(session, step, began)
            ends = session.epoch == recipe.schedule.epochs or session.stopped
            if ends or session.epoch % recipe.evaluate.every == 0:
                session.share_buffers()
                measured = {"step": session.step, **session.evaluate()}
            session.save(measured if measured.get("step") == session.step else None)
        if session.log:
            session.log.close()
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


def _run_epoch(session: TrainingSession, step: Step, began: float) -> None:
    """Train to the end of the epoch, or to ``run.max_steps``."""
    require("tqdm")
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
        rate, extra = session.prepare()
        step.set_rate(rate)
        seed_all(derive_seed(run.seed, STEP, session.step, accelerator.process_index))
        logs = (session.step + 1) % run.log_every == 0
        terms = _train_step(session, step, batch, logs)
        measures = {name: terms.pop(name) for name in list(terms) if name.startswith(session.measures)}
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


def _train_step(session: TrainingSession, step: Step, batch: Any, logs: bool) -> dict[str, float]:
    """One optimiser step, unless its loss is no number; returns the loss and its terms."""
    numbers = step.gradients(session.inputs(batch), logs).numbers()
    if not math.isfinite(numbers["loss"]):
        guilty = ", ".join(name for name, value in numbers.items() if not math.isfinite(value) and name != "loss")
        raise NonFiniteLossError(
            f"the loss is {numbers['loss']} at {session.position}; not finite: {guilty or 'only their sum'}; "
            f"all terms: {numbers}. The weights were not updated by this step; the last checkpoint is "
            f"{session.store.last() or 'none yet'}. Usually a lower optim.lr, optim.clip=1, or run.precision=bf16 or "
            "fp32 instead of fp16 helps."
        )
    step.update(session.step + 1)
    return numbers
