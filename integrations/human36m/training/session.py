"""Everything a training run consists of, put together from its recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cycledistill.recipes.run.optim import create_optimizer
from cycledistill.recipes.run.session import TrainingSession, wanted_exits
from cycledistill.recipes.weights.checkpoint import CheckpointStore

from ..data.clips import Clip
from ..data.dataset import LiftWindows, WindowBatches, window_loader
from ..recipe import Recipe
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

    @classmethod
    def assemble(cls, recipe: Recipe, accelerator: Any, store: CheckpointStore, fresh: bool) -> Session:
        """Model, windows, loss and optimiser of a recipe."""
        run, data = recipe.run, recipe.data
        model = create_model(recipe)
        exits = wanted_exits(model, recipe.evaluate.exits)
        training, validation = open_clips(data)
        if recipe.model.weights and fresh:
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
        return cls(
            recipe=recipe,
            accelerator=accelerator,
            task=task,
            wrapped=task,
            optimizer=accelerator.prepare_optimizer(create_optimizer(task, recipe.optim)),
            batches=batches,
            loader=window_loader(windows, batches, data.workers, pin_memory=accelerator.device.type == "cuda"),
            validation=validation,
            exits=exits,
            store=store,
        )
