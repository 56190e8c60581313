"""Everything a training run consists of, put together from its recipe, and its state as plain data."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from timm.utils.model_ema import ModelEmaV3
from torch import nn
from torch.utils.data import DataLoader

from cycledistill.recipes.checkpoint import (
    CheckpointStore,
    find_checkpoint,
    load_weights,
    read_recipe,
    read_state,
    read_weights,
)
from cycledistill.recipes.errors import CheckpointError, ConfigError
from cycledistill.recipes.logs import Meter, RunLog
from cycledistill.recipes.overrides import changed
from cycledistill.recipes.seeding import INIT, derive_seed, seed_all

from .build import create_model, load_starting_weights
from .dataset import Batch, PersonCrops, PictureBatches, crop_loader
from .recipe import Recipe
from .sources import Validation, open_training, open_validation
from .task import PoseTask
from .tokenpose import TokenPose

_logger = logging.getLogger(__name__)

ADVICE = "check model.name, model.options and data.joints"
"""What to look at when weights do not fit the model."""


@dataclass
class Session:
    """A run in the making: its parts, and where it is (``step`` done in all, next ``batch`` of ``epoch``)."""

    recipe: Recipe
    accelerator: Accelerator
    task: PoseTask
    trainee: nn.Module
    """The task, compiled and data-parallel as the run wants it."""
    optimizer: Any
    batches: PictureBatches
    loader: DataLoader[Batch]
    validation: Validation
    exits: list[int]
    keep: float | None
    """Fraction of tokens kept in evaluation, and in training once the annealing is over; ``None`` without pruning."""
    store: CheckpointStore
    ema: Any = None
    step: int = 0
    epoch: int = 0
    batch: int = 0
    skipped: int = 0
    meter: Meter = field(default_factory=Meter)
    log: RunLog | None = None

    @property
    def model(self) -> TokenPose:
        """The pose model inside the task, without DDP and compile."""
        return self.task.model

    @property
    def place(self) -> str:
        """Where the run is, in words."""
        return f"step {self.step} (epoch {self.epoch}, batch {self.batch})"

    def save(self, metrics: dict[str, Any] | None = None) -> Path | None:
        """Write a checkpoint on the main process; returns its folder there."""
        if not self.accelerator.is_main_process:
            return None
        scaler = self.accelerator.scaler
        state = {
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
            "task_loss": self.task.task_loss.state_dict(),
            "position": {"step": self.step, "epoch": self.epoch, "batch": self.batch, "skipped": self.skipped},
            "persons_per_step": self.batches.batch_size * self.batches.world_size,
            "meter": {"sums": self.meter.sums, "count": self.meter.count},
        }
        average = self.ema.module.state_dict() if self.ema else None
        return self.store.save(self.step, self.model.state_dict(), average, state, self._description(metrics or {}))

    def load(self, checkpoint: Path) -> None:
        """Go on from a checkpoint: weights, average, optimiser, scaler and position.

        Raises:
            CheckpointError: It is damaged, of another model, or was cut mid-epoch with another number of persons a
                step.
        """
        recipe, state = read_recipe(checkpoint), read_state(checkpoint / "state.pt")
        if self.accelerator.is_main_process:
            for line in changed(recipe.get("config", {}), self.recipe.to_dict()):
                _logger.warning("resuming with another recipe: %s", line)
        load_weights(self.model, read_weights(checkpoint / "model.safetensors"), checkpoint, ADVICE)
        if self.ema:
            file = checkpoint / "ema.safetensors"
            source = file if file.is_file() else checkpoint / "model.safetensors"
            load_weights(self.ema.module, read_weights(source), source, ADVICE)
        try:
            position, persons = state["position"], self.batches.batch_size * self.batches.world_size
            if position["batch"] and state["persons_per_step"] != persons:
                raise CheckpointError(
                    f"{checkpoint} was saved inside an epoch with {state['persons_per_step']} persons a step, this run "
                    f"has {persons}: go on with the same number, or from a checkpoint at the end of an epoch."
                )
            self.task.task_loss.load_state_dict(state["task_loss"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.accelerator.scaler and state["scaler"]:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            self.meter = Meter(**state["meter"])
            self.step, self.epoch, self.batch = position["step"], position["epoch"], position["batch"]
            self.skipped = position["skipped"]
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{checkpoint / 'state.pt'} does not fit this run: {error}") from error
        _logger.info("resumed from %s: %s", checkpoint, self.place)

    def _description(self, metrics: dict[str, Any]) -> dict[str, Any]:
        handle: Any = getattr(self.model, "cyclic", None)
        return {
            "format": 1,
            "model": self.recipe.model.name,
            "network": dataclasses.asdict(self.model.config),
            "cycles": handle.cycles if handle else None,
            "distill": self.recipe.cyclic.distill,
            "step": self.step,
            "epoch": self.epoch,
            "batch": self.batch,
            "metrics": metrics,
            "config": self.recipe.to_dict(),
            "versions": {name: _version(name) for name in ("torch", "accelerate", "cycledistill")},
        }


def start(recipe: Recipe, accelerator: Accelerator, resume: str | None) -> Session:
    """Put a run together; with ``resume`` (a path, or ``"auto"``) at the point where it stopped.

    Raises:
        ConfigError: The recipe does not fit the model, or a new run would write over an old one.
        PoseDataError: The data set cannot be trained on.
        CheckpointError: The checkpoint cannot be gone on from.
    """
    run, data = recipe.run, recipe.data
    store, checkpoint = _find_start(recipe, resume)
    accelerator.wait_for_everyone()  # nobody writes before all have looked
    seed_all(derive_seed(run.seed, INIT))  # the same on every process: the same weights
    model = create_model(recipe)
    handle: Any = getattr(model, "cyclic", None)
    exits = recipe.evaluate.exits or list(range(1, handle.cycles + 2) if handle else [1])
    if recipe.evaluate.best_exit not in exits or (handle is None and exits != [1]):
        raise ConfigError(
            f"evaluate.best_exit={recipe.evaluate.best_exit} with exits {exits}: the best one must be among them, and "
            "a model without cycles has exit 1 only (cyclic.cycles=1 gives it more)."
        )
    size = model.config.image_size
    training, validation = open_training(data, size), open_validation(data, size)
    if not checkpoint:
        load_starting_weights(model, recipe)
    crops = PersonCrops(
        training.persons, training.images, data.joint_set, size, recipe.augment, run.seed, data.broken_images
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


def _find_start(recipe: Recipe, resume: str | None) -> tuple[CheckpointStore, Path | None]:
    output = Path(recipe.run.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"run.output={recipe.run.output!r} cannot be written to: {error}") from error
    store = CheckpointStore(output / "checkpoints", recipe.run.keep, ("exits", str(recipe.evaluate.best_exit), "AP"))
    checkpoint = store.last() if resume == "auto" else find_checkpoint(resume) if resume else None
    if not resume and store.last():
        raise ConfigError(f"{recipe.run.output} holds a run already: pass --resume auto to go on, or another --output.")
    if checkpoint and any(path.name > checkpoint.name for path in store.complete()):
        # the new checkpoints would be the older ones, and dropped first
        raise ConfigError(
            f"{recipe.run.output} holds checkpoints after {checkpoint.name}: go on from there in another --output."
        )
    return store, checkpoint


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
