"""The training loop of a run: steps, logs, checkpoints and evaluations."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch
from timm.utils.clip_grad import dispatch_clip_grad
from timm.utils.distributed import distribute_bn
from tqdm import tqdm

from cycledistill.recipes.run.engine import autocast
from cycledistill.recipes.run.finite import finite_terms
from cycledistill.recipes.run.seeding import STEP, derive_seed, seed_all

from ..errors import DataError
from .evaluate import evaluate
from .session import Session

_logger = logging.getLogger(__name__)


def run_training(session: Session, began: float) -> dict[str, Any]:
    """Train to the recipe's end, or to ``run.max_steps``; returns the summary of the run."""
    config = session.config
    measured: dict[str, Any] = {}
    while session.epoch < config.schedule.epochs and not _stopped(session):
        _run_epoch(session, began)
        ends = session.epoch == config.schedule.epochs or _stopped(session)
        if ends or session.epoch % config.run.eval_every == 0:
            measured = _evaluate(session)
        session.save(measured if measured.get("step") == session.step else None)
    if session.log:
        session.log.close()
    return {
        **measured,
        "step": session.step,
        "epoch": session.epoch,
        "finished": session.epoch >= config.schedule.epochs,
        "checkpoint": str(session.store.last()),
        "seconds": round(time.monotonic() - began, 1),
    }


def _run_epoch(session: Session, began: float) -> None:
    """Train to the end of the epoch, or to ``run.max_steps``."""
    run, loader = session.config.run, session.train_loader
    session.task.train()
    bar = tqdm(
        loader.batches(session.epoch, session.batch),
        desc=f"epoch {session.epoch}",
        total=len(loader),
        initial=session.batch,
        disable=None if run.progress and session.place.primary else True,
    )
    for images, target in bar:
        rate = session.schedule.set(session.epoch, session.batch)
        seed_all(derive_seed(run.seed, STEP, session.step, session.place.rank))
        losses = _train_step(session, images, target)
        session.meter.add(losses)
        session.step, session.batch = session.step + 1, session.batch + 1
        bar.set_postfix(loss=f"{losses['loss']:.3f}", refresh=False)
        if session.step % run.log_every == 0 and session.log:
            row = {"step": session.step, "epoch": session.epoch, "lr": rate, **session.meter.take()}
            session.log.write("train", **row, seconds=round(time.monotonic() - began, 1))
        if session.batch >= len(loader) or _stopped(session):
            break
        if run.save_every_steps and session.step % run.save_every_steps == 0:
            session.save()
    if session.batch == 0:
        raise DataError("the training images made no batch: lower data.batch_size.")
    if not _stopped(session) or session.batch >= len(loader):
        session.epoch, session.batch = session.epoch + 1, 0


def _train_step(session: Session, images: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    """One optimiser step; returns the loss and its terms."""
    config, task, device = session.config, session.task, session.place.device
    images, target = images.to(device, non_blocking=True), target.to(device, non_blocking=True)
    if session.mixup is not None:
        images, target = session.mixup(images, target)
    with autocast(device, config.run.precision):
        result = task(images, target)
    losses = _finite({name: value for name, value in result.items() if name != "output"}, session)
    session.optimizer.zero_grad(set_to_none=True)
    clip = {"clip_grad": config.optim.clip, "clip_mode": config.optim.clip_mode}
    parameters = task.get_clip_parameters(exclude_head=config.optim.clip_mode == "agc")
    if session.scaler is not None:
        session.scaler(result["loss"], session.optimizer, parameters=parameters, **clip)
    else:
        result["loss"].backward()
        if config.optim.clip is not None:
            dispatch_clip_grad(parameters, config.optim.clip, mode=config.optim.clip_mode)
        session.optimizer.step()
    task.update_ema(step=session.step + 1)
    return losses


def _finite(terms: dict[str, torch.Tensor], session: Session) -> dict[str, float]:
    """The terms as numbers; an error that names step and terms when the loss is not finite."""
    return finite_terms(
        terms,
        f"step {session.step} (epoch {session.epoch}, batch {session.batch})",
        session.store.last(),
        "Usually a lower optim.lr, optim.clip=1, or run.precision=bf16 or fp32 instead of fp16 helps.",
    )


def _evaluate(session: Session) -> dict[str, Any]:
    """Accuracy at every exit, of the weights and of their average; logged."""
    config, task = session.config, session.task
    if session.place.world > 1:
        distribute_bn(session.model, session.place.world, reduce=True)
    measured: dict[str, Any] = {"step": session.step}
    for name, key in (("model", "exits"), ("ema", "ema_exits")):
        model = task.get_eval_model(ema=name == "ema")
        if model is None:
            continue  # the recipe keeps no average
        shown = config.run.progress and session.place.primary
        exits = evaluate(model, session.val_loader, session.exits, precision=config.run.precision, progress=shown)
        measured[key] = exits
        flat = {f"{metric}@{number}": value for number, all_ in exits.items() for metric, value in all_.items()}
        if session.log:
            session.log.write("eval", step=session.step, epoch=session.epoch, weights=name, **flat)
        accuracy = ", ".join(f"{values['top1']:.2f} at exit {number}" for number, values in exits.items())
        _logger.info("step %d, %s: top-1 %s", session.step, name, accuracy)
    return measured


def _stopped(session: Session) -> bool:
    limit = session.config.run.max_steps
    return limit is not None and session.step >= limit
