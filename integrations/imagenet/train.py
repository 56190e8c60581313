"""Train a timm classifier with cycles, from the command line or from Python.

    python -m cycledistill.integrations.imagenet.train --data-dir /data/imagenet --config deit_tiny --output runs/a
    torchrun --nproc-per-node 4 -m cycledistill.integrations.imagenet.train --data-dir /data/imagenet --output runs/a
    python -m cycledistill.integrations.imagenet.train --evaluate runs/a --data-dir /data/imagenet

A run that was stopped or killed goes on, bit for bit, with ``--resume auto``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.utils.clip_grad import dispatch_clip_grad
from timm.utils.distributed import distribute_bn
from tqdm import tqdm

from cycledistill.recipes.run.engine import autocast
from cycledistill.recipes.run.finite import finite_terms
from cycledistill.recipes.run.seeding import STEP, derive_seed, seed_all
from cycledistill.recipes.weights.checkpoint import find_checkpoint, read_recipe

from .errors import CheckpointError, DataError, NonFiniteLossError
from .place import take_place
from .recipe import Recipe, RecipeError, load_recipe
from .trained import evaluate_trained
from .training.evaluate import evaluate
from .training.session import Session, start

_logger = logging.getLogger(__name__)


def train(config: Recipe, resume: str | None = None) -> dict[str, Any]:
    """Run a recipe to its end, or to ``run.max_steps``; logs and checkpoints go to ``run.output``.

    Args:
        config: The recipe, from ``load_recipe``.
        resume: A run's folder, a checkpoint, or ``"auto"`` for the last one under ``run.output``, if any.

    Returns:
        ``step``, ``epoch``, ``finished``, ``exits`` and, with an average of the weights, ``ema_exits`` (exit -> top1,
        top5, loss of the last evaluation), ``checkpoint`` (its folder, on the primary process), ``seconds``.

    Raises:
        RecipeError: The recipe does not fit the model, or ``run.output`` holds another run.
        DataError: The images cannot be trained on.
        CheckpointError: The checkpoint cannot be gone on from.
        NonFiniteLossError: The loss became nan or infinite; the weights were not updated by that step.

    Example:
        >>> train(load_recipe("cpu_96", ["data.dir=imagenette", "run.max_steps=200"]))["exits"][1]["top1"]
    """
    began = time.monotonic()
    place = take_place(config.run.device)
    try:
        session = start(config, place, resume)
        measured: dict[str, Any] = {}
        while session.epoch < config.schedule.epochs and not _stopped(session):
            _run_epoch(session, began)
            ends = session.epoch == config.schedule.epochs or _stopped(session)
            if ends or session.epoch % config.run.eval_every == 0:
                measured = _evaluate(session)
            session.save(measured if measured.get("step") == session.step else None)
        if session.log:
            session.log.close()
    finally:
        place.leave()
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


def main(argv: Sequence[str] | None = None) -> int:
    """The command: train, resume or evaluate; the summary goes to standard output as JSON."""
    parser = argparse.ArgumentParser("cycledistill.integrations.imagenet.train", description=__doc__.splitlines()[0])
    add_arguments(parser)
    args = parser.parse_args(argv)
    primary = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if primary else logging.ERROR, format="%(name)s: %(message)s")
    try:
        config = config_from_args(args)
        summary = evaluate_trained(config, args.evaluate) if args.evaluate else train(config, args.resume)
    except (RecipeError, DataError, CheckpointError, NonFiniteLossError) as error:
        # an error from a loader worker comes with the worker's traceback before its message
        parser.exit(2, f"error: {str(error).rpartition(f'{type(error).__name__}: ')[2].strip()}\n")
    except KeyboardInterrupt:
        parser.exit(130, "stopped; --resume auto goes on from the last checkpoint\n")
    if primary:
        sys.stdout.write(json.dumps(summary, indent=1) + "\n")
    return 0


# flag -> (config key, help); None: no key of the config
_FLAGS: dict[str, tuple[str, type, str]] = {
    "--data-dir": ("data.dir", str, "folder with the splits: class folders, .tar or Parquet files"),
    "--model": ("model.name", str, "timm model name"),
    "--cycles": ("cyclic.cycles", int, "cycles while training (1: the plain model)"),
    "--distill": ("cyclic.distill", str, "preset: sdpose, exits, elt, mct, or none"),
    "--output": ("run.output", str, "folder for logs and checkpoints"),
    "--epochs": ("schedule.epochs", int, "length of the schedule"),
    "--batch-size": ("data.batch_size", int, "images a process and step"),
    "--workers": ("data.workers", int, "loader processes"),
    "--device": ("run.device", str, "cpu, cuda or auto"),
    "--seed": ("run.seed", int, "seed of everything random"),
    "--max-steps": ("run.max_steps", int, "stop after so many steps, with a checkpoint"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the recipe's options to ``parser``; :func:`config_from_args` reads them."""
    parser.add_argument(
        "--config", help="YAML file, or a packaged recipe: deit_tiny, imagenette_96, cifar10_32, cpu_96"
    )
    for flag, (key, kind, text) in _FLAGS.items():
        parser.add_argument(flag, type=kind, metavar=key, help=text)
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="any key of the recipe; repeatable")
    parser.add_argument(
        "--resume", metavar="PATH", help="a run's folder, a checkpoint, or 'auto': the last in --output"
    )
    parser.add_argument("--evaluate", metavar="PATH", help="measure a run, a checkpoint or a weights file; no training")


def config_from_args(args: argparse.Namespace) -> Recipe:
    """The recipe: defaults, then ``--config`` (with ``--evaluate``, else the checkpoint's own), options, ``--set``.

    Raises:
        RecipeError: Unknown keys, wrong types or values.
    """
    source: str | Mapping[str, Any] | None = args.config
    if args.evaluate and not args.config and not _is_file(args.evaluate):
        source = read_recipe(find_checkpoint(args.evaluate)).get("recipe", {})
    if args.evaluate and args.resume:
        raise RecipeError("--evaluate and --resume exclude each other.")
    options: list[Any] = []
    for flag, (key, _, _) in _FLAGS.items():
        value = getattr(args, flag.lstrip("-").replace("-", "_"))
        if value is not None:
            options.append((key, None if key == "cyclic.distill" and value == "none" else value))
    return load_recipe(source, [*options, *args.set])


def _is_file(path: str) -> bool:
    return path.endswith((".safetensors", ".pth", ".pt", ".bin"))


if __name__ == "__main__":
    sys.exit(main())
