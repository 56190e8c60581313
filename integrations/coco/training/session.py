"""Everything a training run consists of, put together from its recipe, and its state as plain data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from timm.utils.model_ema import ModelEmaV3
from torch.utils.data import DataLoader

from cycledistill.recipes.run.logs import RunLog
from cycledistill.recipes.run.seeding import INIT, derive_seed, seed_all
from cycledistill.recipes.run.session import TrainingSession, find_start, wanted_exits
from cycledistill.recipes.weights.checkpoint import CheckpointStore

from ..data.dataset import Batch, PersonCrops, PictureBatches, crop_loader
from ..models.tokenpose import TokenPose
from ..recipe import Recipe
from .build import create_model, load_starting_weights
from .sources import Validation, open_training, open_validation
from .task import PoseTask

ADVICE = "check model.name, model.options and data.joints"
"""What to look at when weights do not fit the model."""


@dataclass(kw_only=True)
class Session(TrainingSession):
    """A run in the making."""

    recipe: Recipe
    task: PoseTask
    loader: DataLoader[Batch]
    validation: Validation
    keep: float | None
    """Fraction of tokens kept in evaluation, and in training once the annealing is over; ``None`` without pruning."""

    unit = "persons"
    advice = ADVICE

    @property
    def model(self) -> TokenPose:
        """The pose model inside the task, without DDP and compile."""
        return self.task.model

    def network(self) -> dict[str, Any]:
        """The model's architecture, for ``recipe.json``."""
        return {"network": dataclasses.asdict(self.model.config)}

    def task_state(self) -> dict[str, Any]:
        """State of the loss, which may have parameters of its own."""
        return self.task.task_loss.state_dict()

    def load_task_state(self, state: dict[str, Any]) -> None:
        """Put the state of the loss back."""
        self.task.task_loss.load_state_dict(state)


def start(recipe: Recipe, accelerator: Accelerator, resume: str | None) -> Session:
    """Put a run together; with ``resume`` (a path, or ``"auto"``) at the point where it stopped.

    Raises:
        RecipeError: The recipe does not fit the model, or a new run would write over an old one.
        PoseDataError: The data set cannot be trained on.
        CheckpointError: The checkpoint cannot be gone on from.
    """
    run, data = recipe.run, recipe.data
    best_by = ("exits", str(recipe.evaluate.best_exit), "AP")
    store = CheckpointStore(Path(run.output) / "checkpoints", run.keep, best_by)
    checkpoint = find_start(run.output, store, resume)
    accelerator.wait_for_everyone()  # nobody writes before all have looked
    seed_all(derive_seed(run.seed, INIT))  # the same on every process: the same weights
    model = create_model(recipe)
    exits = wanted_exits(model, recipe.evaluate.exits, recipe.evaluate.best_exit)
    size = model.config.image_size
    training, validation = open_training(data, size), open_validation(data, size)
    if not checkpoint:
        load_starting_weights(model, recipe)
    crops = PersonCrops(
        training.persons,
        training.images,
        data.joint_set,
        size,
        recipe.augment,
        run.seed,
        data.broken_images,
        refill=True,
    )
    rank, world = accelerator.process_index, accelerator.num_processes
    batches = PictureBatches(
        training.persons, data.batch_size, shuffle=True, seed=run.seed, rank=rank, world_size=world
    )
    task = PoseTask(model, recipe.loss).to(accelerator.device)
    kind = torch.optim.Adam if recipe.optim.name == "adam" else torch.optim.AdamW
    parameters = [parameter for parameter in task.parameters() if parameter.requires_grad]
    optimizer = kind(parameters, lr=recipe.optim.lr, weight_decay=recipe.optim.weight_decay)
    pruning: Any = getattr(model, "pruning", None)
    session = Session(
        recipe=recipe,
        accelerator=accelerator,
        task=task,
        trainee=task,
        optimizer=accelerator.prepare_optimizer(optimizer),
        batches=batches,
        loader=crop_loader(crops, batches, data.workers, pin_memory=accelerator.device.type == "cuda"),
        validation=validation,
        exits=exits,
        keep=pruning.keep if pruning else None,
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
