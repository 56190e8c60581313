"""Train a pose model on COCO, CrowdPose or any persons in their formats, from the command line or from Python.

    python -m cycledistill.integrations.coco.train --config sdpose_s_v1 --data-root /data/coco --output runs/a
    accelerate launch --multi_gpu --num_processes 8 -m cycledistill.integrations.coco.train --config sdpose_s_v1 ...
    torchrun --nproc-per-node 8 -m cycledistill.integrations.coco.train --config sdpose_s_v1 ...
    python -m cycledistill.integrations.coco.train --evaluate runs/a --data-root /data/coco

A run that was stopped or killed goes on, bit for bit, with ``--resume auto``.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from cycledistill.recipes.finite import finite_terms
from cycledistill.recipes.seeding import STEP, derive_seed, seed_all

from .build import protocol_of
from .dataset import Batch
from .engine import engine
from .images import PoseDataError
from .measure import evaluate
from .recipe import Recipe
from .schedules import keep_fraction, learning_rate
from .session import Session, start
from .task import to_device

_logger = logging.getLogger(__name__)
_MEASURES = ("token_rms_", "token_task_ratio_")


def train(recipe: Recipe, resume: str | None = None) -> dict[str, Any]:
    """Run a recipe to its end, or to ``run.max_steps``; logs and checkpoints go to ``run.output``.

    Args:
        recipe: From ``load_recipe``.
        resume: A run's folder, a checkpoint, or ``"auto"`` for the last one under ``run.output``, if any.

    Returns:
        ``step``, ``epoch``, ``finished``, ``exits`` and, with an average of the weights, ``ema_exits`` (exit -> AP, AR,
        ... of the last evaluation), ``skipped`` (persons of unreadable pictures), ``checkpoint`` (its folder) and
        ``best`` (that of the highest AP), ``seconds``.

    Raises:
        ConfigError: The recipe does not fit the model, or ``run.output`` holds another run.
        PoseDataError: The data set cannot be trained on.
        CheckpointError: The checkpoint cannot be gone on from, or cannot be written.
        NonFiniteLossError: The loss became nan or infinite; the weights were not updated by that step.

    Example:
        >>> recipe = load_recipe("sdpose_s_v1", ["data.root=/data/coco", "run.max_steps=200"])
        >>> train(recipe)["exits"][1]["AP"]
    """
    began = time.monotonic()
    with engine(recipe.run) as accelerator:
        session = start(recipe, accelerator, resume)
        measured: dict[str, Any] = {}
        while session.epoch < recipe.schedule.epochs and not _stopped(session):
            _run_epoch(session, began)
            ends = session.epoch == recipe.schedule.epochs or _stopped(session)
            if ends or session.epoch % recipe.evaluate.every == 0:
                measured = _evaluate(session)
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
        "checkpoint": str(session.store.last()),
        "best": str(session.store.best()),
        "seconds": round(time.monotonic() - began, 1),
    }


def _run_epoch(session: Session, began: float) -> None:
    """Train to the end of the epoch, or to ``run.max_steps``."""
    run, accelerator, length = session.recipe.run, session.accelerator, len(session.batches)
    session.batches.epoch, session.batches.start = session.epoch, session.batch
    session.trainee.train()
    bar = tqdm(
        session.loader,
        desc=f"epoch {session.epoch}",
        total=length,
        initial=session.batch,
        disable=None if run.progress and accelerator.is_main_process else True,
    )
    for batch in bar:
        _count_skipped(session, batch)
        rate, kept = _prepare(session)
        logs = (session.step + 1) % run.log_every == 0
        terms = _train_step(session, batch, logs)
        measures = {name: terms.pop(name) for name in list(terms) if name.startswith(_MEASURES)}
        session.meter.add(terms)
        session.step, session.batch = session.step + 1, session.batch + 1
        bar.set_postfix(loss=f"{terms['loss']:.5f}", refresh=False)
        if logs and session.log:
            row = {**session.meter.take(), **measures, **kept, "seconds": round(time.monotonic() - began, 1)}
            session.log.write("train", step=session.step, epoch=session.epoch, lr=rate, **row)
        if session.batch >= length or _stopped(session):
            break
        if run.save_every_steps and session.step % run.save_every_steps == 0:
            session.save()
    if session.batch >= length:
        session.epoch, session.batch = session.epoch + 1, 0


def _prepare(session: Session) -> tuple[float, dict[str, float]]:
    """Set all that is a function of the step: rate, pruning and random numbers; returns the first two."""
    recipe, length = session.recipe, len(session.batches)
    rate = learning_rate(session.step, length, recipe.optim.lr, recipe.schedule)
    for group in session.optimizer.param_groups:
        group["lr"] = rate
    kept = {}
    if session.keep is not None:
        kept["keep"] = keep_fraction(session.step, length, session.keep, recipe.prune)
        session.model.pruning.keep = kept["keep"]  # type: ignore[union-attr]
    seed_all(derive_seed(recipe.run.seed, STEP, session.step, session.accelerator.process_index))
    return rate, kept


def _train_step(session: Session, batch: Batch, measures: bool) -> dict[str, float]:
    """One optimiser step; returns the loss and its terms."""
    accelerator, recipe = session.accelerator, session.recipe
    session.task.measures = measures
    terms: dict[str, Tensor] = session.trainee(*to_device(batch, accelerator.device))
    numbers = finite_terms(
        terms,
        session.place,
        session.store.last(),
        "Usually a lower optim.lr, optim.clip=1, or run.precision=bf16 or fp32 instead of fp16 helps.",
    )
    session.optimizer.zero_grad(set_to_none=True)
    accelerator.backward(terms["loss"])
    if recipe.optim.clip is not None:
        accelerator.clip_grad_norm_(session.task.parameters(), recipe.optim.clip)
    session.optimizer.step()
    if session.ema:
        session.ema.update(session.model, step=session.step + 1)
    return numbers


def _count_skipped(session: Session, batch: Batch) -> None:
    """Count the persons of unreadable pictures; a batch of nothing else cannot be trained on."""
    batches, rows = session.batches, len(batch["person"])
    left = batches.people - session.batch * batches.batch_size
    asked = batches.batch_size if batches.world_size > 1 else min(batches.batch_size, left)
    session.skipped += asked - rows
    if not rows:
        raise PoseDataError(f"at {session.place} no picture of the batch could be read; check data.train_images")


def _evaluate(session: Session) -> dict[str, Any]:
    """AP at every exit, of the weights and of their average; logged."""
    recipe, accelerator, validation = session.recipe, session.accelerator, session.validation
    if accelerator.num_processes > 1:
        for buffer in session.model.buffers():  # BatchNorm's statistics: every process has seen other images
            dist.broadcast(buffer, src=0)
    measured: dict[str, Any] = {"step": session.step}
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
            protocol=protocol_of(recipe),
            progress=recipe.run.progress and accelerator.is_main_process,
        )
        flat = {f"{metric}@{exit}": value for exit, found in measured[key].items() for metric, value in found.items()}
        if session.log:
            session.log.write("eval", step=session.step, epoch=session.epoch, weights=name, **flat)
        shown = ", ".join(f"{found['AP']:.4f} at exit {exit}" for exit, found in measured[key].items())
        _logger.info("step %d, %s: AP %s", session.step, name, shown)
    return measured


def _stopped(session: Session) -> bool:
    limit = session.recipe.run.max_steps
    return limit is not None and session.step >= limit


if __name__ == "__main__":
    from .cli import main

    sys.exit(main())
