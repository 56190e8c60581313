"""Everything a training run consists of, put together from its recipe, and its state as plain data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from torch.utils.data import DataLoader

from cycledistill.plugin.install import handle_of
from cycledistill.recipes.run.optim import create_optimizer
from cycledistill.recipes.run.session import TrainingSession, wanted_exits
from cycledistill.recipes.weights.checkpoint import CheckpointStore

from ..data.dataset import Batch, PersonCrops, PictureBatches, crop_loader
from ..models.tokenpose import TokenPose
from ..recipe import Recipe
from .build import create_model, load_starting_weights
from .sources import Split, Validation, open_training, open_validation
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

    @classmethod
    def best_by(cls, recipe: Recipe) -> tuple[str, ...]:
        """AP at the exit that the recipe names."""
        return "exits", str(recipe.evaluate.best_exit), "AP"

    @classmethod
    def assemble(cls, recipe: Recipe, accelerator: Any, store: CheckpointStore, fresh: bool) -> Session:
        """Model, persons, loss and optimiser of a recipe."""
        model = create_model(recipe)
        exits = wanted_exits(model, recipe.evaluate.exits, recipe.evaluate.best_exit)
        size = model.config.image_size
        training, validation = open_training(recipe.data, size), open_validation(recipe.data, size)
        if fresh:
            load_starting_weights(model, recipe)
        batches, loader = _training_batches(recipe, training, size, accelerator)
        task = PoseTask(model, recipe.loss).to(accelerator.device)
        pruning = handle_of(model, "pruning")
        return cls(
            recipe=recipe,
            accelerator=accelerator,
            task=task,
            wrapped=task,
            optimizer=accelerator.prepare_optimizer(create_optimizer(task, recipe.optim)),
            batches=batches,
            loader=loader,
            validation=validation,
            exits=exits,
            keep=pruning.keep if pruning else None,
            store=store,
        )

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
    return Session.start(recipe, accelerator, resume)


def _training_batches(
    recipe: Recipe, training: Split, size: tuple[int, int], accelerator: Any
) -> tuple[PictureBatches, DataLoader[Batch]]:
    """Which persons this process sees in which order, and their crops."""
    run, data = recipe.run, recipe.data
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
    batches = PictureBatches(
        training.persons,
        data.batch_size,
        shuffle=True,
        seed=run.seed,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    return batches, crop_loader(crops, batches, data.workers, pin_memory=accelerator.device.type == "cuda")
