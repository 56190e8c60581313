"""Everything a training run consists of, put together from its recipe, and its state as plain data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from cycledistill.plugin.install import handle_of
from cycledistill.recipes.run.optim import create_optimizer
from cycledistill.recipes.run.session import Figures, TrainingSession, wanted_exits
from cycledistill.recipes.run.step import Inputs
from cycledistill.recipes.run.trained import recipe_of_run
from cycledistill.recipes.weights.checkpoint import CheckpointStore

from ..data.dataset import Batch, PersonCrops, PictureBatches, crop_loader
from ..data.images import PoseDataError
from ..evaluation.measure import evaluate
from ..recipe import Recipe, load_recipe
from ..weights.described import check_joints, words_of
from ..weights.loading import check_network
from .build import create_model, eval_settings
from .joints import with_joints
from .schedules import keep_fraction, learning_rate
from .sources import Split, Validation, open_training, open_validation
from .starting import load_starting_weights
from .task import PoseTask, to_device

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

    command = "coco"
    unit = "persons"
    advice = ADVICE
    measures = ("token_rms_", "token_task_ratio_")

    @classmethod
    def best_by(cls, recipe: Recipe) -> tuple[str, ...]:
        """AP at the exit that the recipe names."""
        return "exits", str(recipe.evaluate.best_exit), "AP"

    @classmethod
    def assemble(cls, recipe: Recipe, accelerator: Any, store: CheckpointStore, fresh: bool) -> Session:
        """Model, persons, loss and optimiser of a recipe."""
        recipe = with_joints(recipe)
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
            optimizer=accelerator.prepare_optimizer(create_optimizer(task, recipe.optim)),
            batches=batches,
            loader=loader,
            validation=validation,
            exits=exits,
            keep=pruning.keep if pruning else None,
            store=store,
        )

    def prepare(self) -> tuple[float, dict[str, float]]:
        """Set the fraction of tokens kept; the rate and that fraction are functions of the step."""
        recipe, length = self.recipe, len(self.batches)
        kept = {}
        if self.keep is not None:
            kept["keep"] = self.model.pruning.keep = keep_fraction(self.step, length, self.keep, recipe.prune)
        return learning_rate(self.step, length, recipe.optim.lr, recipe.schedule), kept

    def inputs(self, batch: Batch) -> Inputs:
        """Images, joints and visibility; the persons of unreadable pictures are counted."""
        self.skipped += batch["skipped"]
        if not len(batch["person"]):  # the places of unreadable pictures are filled while any can be read
            raise PoseDataError(f"at {self.position} no picture at all could be read any more; check data.train_images")
        return to_device(batch, self.accelerator.device)

    def terms(self, inputs: Inputs, logs: bool) -> dict[str, Tensor]:
        """The loss of a batch and its terms."""
        terms: dict[str, Tensor] = self.wrapped(*inputs, measures=logs)
        return terms

    def evaluate(self, **logged: Any) -> dict[str, Any]:
        """Measure the weights and their average; the log says in which boxes."""
        return super().evaluate(boxes=self.boxes, **logged)

    def measure(self, model: Any) -> Figures:
        """AP at every exit."""
        recipe, validation = self.recipe, self.validation
        if self.keep is not None:
            model.pruning.keep = self.keep
        return evaluate(
            model,
            validation.persons,
            validation.images,
            recipe.data.joint_set,
            validation.truth,
            exits=self.exits,
            settings=eval_settings(recipe),
            progress=recipe.run.progress and self.accelerator.is_main_process,
        )

    def look_at_validation(self) -> None:
        """Cut the first batch of persons to validate on out of their pictures."""
        data, found = self.recipe.data, self.validation
        crops = PersonCrops(found.persons, found.images, data.joint_set, self.model.config.image_size)
        crops.broken = data.broken_images
        crops.__getitems__([(0, person) for person in range(min(len(crops), self.recipe.evaluate.batch_size))])

    def tell(self, name: str, figures: Figures) -> str:
        """AP at every exit."""
        shown = ", ".join(f"{found['AP']:.4f} at exit {exit}" for exit, found in figures.items())
        return f"{name}, {self.boxes} boxes: AP {shown}"

    @property
    def boxes(self) -> str:
        """Whose boxes persons are evaluated in."""
        return "annotated" if self.recipe.data.detections is None else "detected"

    def network(self) -> dict[str, Any]:
        """The model's architecture, for ``recipe.json``."""
        return {"network": dataclasses.asdict(self.model.config)}

    def weights_metadata(self) -> dict[str, str]:
        """How the model is built and which joints it predicts, for a file of weights that is taken out of the run."""
        return words_of(self.model, self.recipe.model.name)

    def check_outputs(self, stored: dict[str, Any], checkpoint: Path) -> None:
        """Refuse a checkpoint of other joints, of the same in another order, or of a network with other attention."""
        trained = recipe_of_run(checkpoint, load_recipe, self.command)
        check_joints(trained.data.joint_set.to_dict(), self.model, checkpoint)
        check_network(stored.get("network", {}), self.model.config, checkpoint)

    def task_state(self) -> dict[str, Any]:
        """State of the loss, which may have parameters of its own."""
        return self.task.task_loss.state_dict()

    def load_task_state(self, state: dict[str, Any]) -> None:
        """Put the state of the loss back."""
        self.task.task_loss.load_state_dict(state)


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
