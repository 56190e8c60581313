"""Everything a run consists of, put together from its recipe, and its state as plain data."""

from __future__ import annotations

import importlib.metadata
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from timm.utils.cuda import NativeScaler
from timm.utils.model import unwrap_model
from torch import nn
from torch.optim import Optimizer

from cycledistill.recipes.config.overrides import changed
from cycledistill.recipes.run.logs import Meter, RunLog
from cycledistill.recipes.run.seeding import INIT, derive_seed, seed_all
from cycledistill.recipes.weights import read_weights
from cycledistill.recipes.weights.checkpoint import (
    CheckpointStore,
    find_checkpoint,
    load_weights,
    read_recipe,
    read_state,
)

from ..data.loader import TrainLoader, create_mixup, eval_loader
from ..data.splits import open_images
from ..errors import CheckpointError
from ..place import Place
from ..recipe import Recipe, RecipeError
from ..task import CyclicTask
from .build import ADVICE, check_name, create_model, image_size
from .optim import Schedule, create_optimizer

_logger = logging.getLogger(__name__)

BEST_BY = ("exits", "1", "top1")
"""By what the best checkpoint is chosen; JSON turns the exits' numbers into text."""


@dataclass
class Session:
    """A run in the making: its parts, and where it is (``step`` done in all, next ``batch`` of ``epoch``)."""

    config: Recipe
    place: Place
    task: CyclicTask
    optimizer: Optimizer
    scaler: NativeScaler | None
    schedule: Schedule
    train_loader: TrainLoader
    val_loader: Any
    mixup: Any
    store: CheckpointStore
    classes: list[str]
    step: int = 0
    epoch: int = 0
    batch: int = 0
    meter: Meter = field(default_factory=Meter)
    log: RunLog | None = None

    @property
    def model(self) -> nn.Module:
        """The timm model inside the task, without DDP and compile."""
        return unwrap_model(self.task.get_trainable_module())

    @property
    def exits(self) -> list[int]:
        """The cycles to evaluate: 1 to one beyond those trained, unless the recipe names them."""
        return self.config.cyclic.exits or list(range(1, self.config.cyclic.cycles + 2))

    def save(self, metrics: dict[str, Any] | None = None) -> Path | None:
        """Write a checkpoint on the primary process; returns its folder there."""
        if not self.place.primary:
            return None
        state = {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "position": {"step": self.step, "epoch": self.epoch, "batch": self.batch},
            "images_per_step": self.config.data.batch_size * self.place.world,
            "meter": {"sums": self.meter.sums, "count": self.meter.count},
        }
        ema = self.task.get_checkpoint_state(ema=True).get("state_dict_ema")
        weights = self.task.get_checkpoint_state()["state_dict"]
        return self.store.save(self.step, weights, ema, state, self._recipe(metrics or {}))

    def load(self, checkpoint: Path) -> None:
        """Go on from a checkpoint: weights, average, optimiser, scaler and position.

        Raises:
            CheckpointError: It is damaged, of another model, or was cut mid-epoch with another number of images a step.
        """
        recipe, state = read_recipe(checkpoint), read_state(checkpoint / "state.pt")
        for line in changed(recipe.get("recipe", {}), self.config.to_dict()):
            _logger.warning("resuming with another recipe: %s", line)
        position, images = state["position"], self.config.data.batch_size * self.place.world
        if position["batch"] and state["images_per_step"] != images:
            raise CheckpointError(
                f"{checkpoint} was saved inside an epoch with {state['images_per_step']} images a step, this run has "
                f"{images}: go on with the same number, or from a checkpoint at the end of an epoch."
            )
        load_weights(self.model, read_weights(checkpoint / "model.safetensors"), checkpoint, ADVICE)
        if self.task.has_ema():
            ema = checkpoint / "ema.safetensors"
            source = ema if ema.is_file() else checkpoint / "model.safetensors"
            load_weights(unwrap_model(self.task.get_eval_model(ema=True)), read_weights(source), source, ADVICE)
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{checkpoint / 'state.pt'}: the optimiser's state does not fit: {error}") from error
        if self.scaler and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.step, self.epoch, self.batch = position["step"], position["epoch"], position["batch"]
        self.meter = Meter(**state["meter"])
        _logger.info("resumed from %s: step %d, epoch %d, batch %d", checkpoint, self.step, self.epoch, self.batch)

    def _recipe(self, metrics: dict[str, Any]) -> dict[str, Any]:
        config = self.config.to_dict()
        return {
            "format": 1,
            "model": {**config["model"], "num_classes": self.model.num_classes},
            "cycles": self.config.cyclic.cycles,
            "distill": self.config.cyclic.distill,
            "blocks": self.config.cyclic.blocks,
            "classes": self.classes,
            "step": self.step,
            "epoch": self.epoch,
            "batch": self.batch,
            "metrics": metrics,
            "recipe": config,
            "versions": {"torch": torch.__version__, "timm": timm.__version__, "cycledistill": _version()},
        }


def start(config: Recipe, place: Place, resume: str | None) -> Session:
    """Put a run together; with ``resume`` (a path, or ``"auto"``) at the point where it stopped.

    Raises:
        RecipeError: The recipe does not fit the model, or a new run would write over an old one.
        DataError: The images cannot be trained on.
        CheckpointError: The checkpoint cannot be gone on from.
    """
    check_name(config.model.name)
    output = Path(config.run.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(f"run.output={config.run.output!r} cannot be written to: {error}") from error
    store = CheckpointStore(output / "checkpoints", config.run.keep, BEST_BY)
    checkpoint = store.last() if resume == "auto" else find_checkpoint(resume) if resume else None
    if not resume and store.last():
        raise RecipeError(f"{config.run.output} holds a run already: pass --resume auto to go on, or another --output.")
    if checkpoint and any(path.name > checkpoint.name for path in store.complete()):
        # the new checkpoints would be the older ones, and dropped first
        raise RecipeError(
            f"{config.run.output} holds checkpoints after {checkpoint.name}: go on from there in another --output."
        )
    seed_all(derive_seed(config.run.seed, INIT))  # the same on every process: the same weights
    images = open_images(config.data, config.run.seed)
    classes = config.model.num_classes or len(images.classes)
    if classes < max(2, len(images.classes)):
        known = f"the images have {len(images.classes)}" if images.classes else "the images do not tell it; set it"
        raise RecipeError(f"model.num_classes={config.model.num_classes}: {known}.")
    model = create_model(config, classes).to(place.device)
    size = image_size(model, config)
    augment = config.augment
    task = CyclicTask(
        model,
        criterion_kwargs={"smoothing": augment.smoothing, "soft_targets": augment.mixes},
        device=place.device,
        verbose=False,
    )
    optimizer = create_optimizer(model, config, config.data.batch_size * place.world)
    train_loader = TrainLoader(images, config, size, place)
    if config.ema.enabled:
        task.setup_ema(config.ema.decay, use_warmup=config.ema.warmup)
    session = Session(
        config=config,
        place=place,
        task=task,
        optimizer=optimizer,
        scaler=NativeScaler(place.device.type) if config.run.precision == "fp16" else None,
        schedule=Schedule(optimizer, model, config, len(train_loader)),
        train_loader=train_loader,
        val_loader=eval_loader(images, config, size, place),
        mixup=create_mixup(config, classes),
        store=store,
        classes=images.classes,
    )
    if checkpoint:
        session.load(checkpoint)
    if config.run.compile:
        task.compile(backend=config.run.compile_backend)
    if place.world > 1:
        task.prepare_distributed(device_ids=place.device_ids)
    if place.primary:
        session.log = RunLog(output, session.step, config.run.tensorboard)
    return session


def _version() -> str:
    try:
        return importlib.metadata.version("cycledistill")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
