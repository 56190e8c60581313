"""Everything a training run consists of, put together from its recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3

from cycledistill.recipes.run.logs import RunLog
from cycledistill.recipes.run.seeding import INIT, derive_seed, seed_all
from cycledistill.recipes.run.session import TrainingSession, find_start, wanted_exits
from cycledistill.recipes.weights.checkpoint import CheckpointStore

from ..data.clips import Clip
from ..data.dataset import LiftWindows, WindowBatches, window_loader
from ..recipe import OptimSection, Recipe
from ..weights.loading import load_lifter_weights
from .build import create_model
from .sources import open_clips
from .task import LiftTask

ADVICE = (
    "check model.name, model.options, hourglass and data.frames; a run for another clip length can start from it by "
    "model.weights=FILE and model.resize=true"
)
"""What to look at when weights do not fit the model."""


@dataclass(kw_only=True)
class Session(TrainingSession):
    """A run in the making."""

    recipe: Recipe
    task: LiftTask
    validation: list[Clip]

    unit = "windows"
    advice = ADVICE


def start(recipe: Recipe, accelerator: Any, resume: str | None) -> Session:
    """Put a run together; with ``resume`` (a path, or ``"auto"``) at the point where it stopped.

    Raises:
        RecipeError: The recipe does not fit the model, or a new run would write over an old one.
        LiftingDataError: The data cannot be trained on.
        CheckpointError: The checkpoint cannot be gone on from.
    """
    run, data = recipe.run, recipe.data
    store = CheckpointStore(Path(run.output) / "checkpoints", run.keep)
    checkpoint = find_start(run.output, store, resume)
    accelerator.wait_for_everyone()  # nobody writes before all have looked
    seed_all(derive_seed(run.seed, INIT))  # the same on every process: the same weights
    model = create_model(recipe)
    exits = wanted_exits(model, recipe.evaluate.exits)
    training, validation = open_clips(data)
    if recipe.model.weights and not checkpoint:
        load_lifter_weights(model, Path(recipe.model.weights), recipe.model.resize)
    windows = LiftWindows(training, data.frames, data.stride, centred=data.centred, flip=data.flip, seed=run.seed)
    batches = WindowBatches(
        len(windows),
        data.batch_size,
        shuffle=True,
        seed=run.seed,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    task = LiftTask(model, recipe.loss).to(accelerator.device)
    session = Session(
        recipe=recipe,
        accelerator=accelerator,
        task=task,
        trainee=task,
        optimizer=accelerator.prepare_optimizer(_optimizer(task, recipe.optim)),
        batches=batches,
        loader=window_loader(windows, batches, data.workers, pin_memory=accelerator.device.type == "cuda"),
        validation=validation,
        exits=exits,
        store=store,
    )
    if recipe.ema.enabled:
        session.ema = ModelEmaV3(model, decay=recipe.ema.decay, use_warmup=recipe.ema.warmup)
    if checkpoint:
        session.load(checkpoint)
    if run.compile:
        task.compile(backend=run.compile_backend)
    session.trainee = accelerator.prepare_model(task)
    if accelerator.is_main_process:
        session.log = RunLog(Path(run.output), session.step, run.tensorboard)
    return session


def _optimizer(task: LiftTask, section: OptimSection) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in task.parameters() if parameter.requires_grad]
    if section.name == "adamw":
        return torch.optim.AdamW(parameters, lr=section.lr, weight_decay=section.weight_decay)
    return torch.optim.Adam(
        parameters, lr=section.lr, weight_decay=section.weight_decay, amsgrad=section.name == "amsgrad"
    )
