"""Everything a training run consists of, put together from its recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timm.data.mixup import Mixup
from timm.utils.clip_grad import dispatch_clip_grad
from timm.utils.distributed import distribute_bn
from torch import Tensor

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.run.session import Figures, TrainingSession, wanted_exits
from cycledistill.recipes.run.step import Inputs
from cycledistill.recipes.weights.checkpoint import CheckpointStore

from ..data.augment import create_mixup
from ..data.classes import other_classes
from ..data.loader import TrainLoader
from ..data.splits import ImageSets, open_images
from ..evaluation.accuracy import evaluate
from ..recipe import Recipe, RecipeError
from ..task import CyclicTask
from .build import ADVICE, check_name, create_model, describe_data, image_size, validation_batches
from .described import built_words
from .optim import Schedule, create_optimizer


@dataclass(kw_only=True)
class Session(TrainingSession):
    """A run in the making."""

    recipe: Recipe
    task: CyclicTask
    loader: TrainLoader
    validation: Any
    """Batches to evaluate on."""
    schedule: Schedule
    mixup: Mixup | None
    classes: list[str]

    command = "imagenet"
    unit = "images"
    advice = ADVICE

    @classmethod
    def start(cls, recipe: Recipe, accelerator: Any, resume: str | None) -> Session:
        """As any run, but an unknown model is refused before images are looked for."""
        check_name(recipe.model.name)
        return super().start(recipe, accelerator, resume)

    @classmethod
    def best_by(cls, recipe: Recipe) -> tuple[str, ...]:
        """Top-1 accuracy at the exit that the recipe names."""
        return "exits", str(recipe.evaluate.best_exit), "top1"

    @classmethod
    def assemble(cls, recipe: Recipe, accelerator: Any, store: CheckpointStore, fresh: bool) -> Session:
        """Images, model, loss and optimiser of a recipe."""
        images = open_images(
            recipe.data, batch_size=recipe.data.batch_size, eval_batch_size=recipe.eval_batch_size, seed=recipe.run.seed
        )
        data, augment, device = recipe.data, recipe.augment, accelerator.device
        rank, world = accelerator.process_index, accelerator.num_processes
        classes = _count_classes(recipe, images)
        model = create_model(recipe, classes).to(device)
        describe_data(model, recipe, images.classes)
        exits = wanted_exits(model, recipe.evaluate.exits, recipe.evaluate.best_exit)
        size = image_size(model, recipe)
        smoothing = {"smoothing": augment.smoothing, "soft_targets": augment.mixes}
        task = CyclicTask(model, criterion_kwargs=smoothing, device=device, verbose=False)
        optimizer = create_optimizer(model, recipe, data.batch_size * world)
        loader = TrainLoader(
            images,
            augment,
            size,
            batch_size=data.batch_size,
            workers=data.workers,
            repeats=data.repeats,
            seed=recipe.run.seed,
            rank=rank,
            world_size=world,
            pin_memory=device.type == "cuda",
        )
        return cls(
            recipe=recipe,
            accelerator=accelerator,
            task=task,
            optimizer=accelerator.prepare_optimizer(optimizer),
            batches=loader,
            loader=loader,
            exits=exits,
            store=store,
            validation=validation_batches(recipe, images.validation, model, accelerator),
            schedule=Schedule(optimizer, model, recipe, len(loader)),
            mixup=create_mixup(augment, classes),
            classes=images.classes,
        )

    def prepare(self) -> tuple[float, dict[str, float]]:
        """Set drop path; it and the rate are functions of the step."""
        return self.schedule.set(self.epoch, self.batch), {}

    def inputs(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Images and targets on the device; mixup and cutmix happen here, and what the loader left to be done."""
        images, target = (tensor.to(self.accelerator.device, non_blocking=True) for tensor in batch)
        images = self.loader.finish(images)
        return (images, target) if self.mixup is None else self.mixup(images, target)

    def terms(self, inputs: Inputs, logs: bool) -> dict[str, Tensor]:
        """The loss of a batch and its terms."""
        terms: dict[str, Tensor] = self.wrapped(*inputs)
        return {name: term for name, term in terms.items() if name != "output"}

    def measure(self, model: Any) -> Figures:
        """Accuracy at every exit."""
        run = self.recipe.run
        shown = run.progress and self.accelerator.is_main_process
        return evaluate(model, self.validation, self.exits, precision=run.precision, progress=shown)

    def look_at_validation(self) -> None:
        """Read the first batch of images to validate on."""
        for _ in self.validation:
            break

    def tell(self, name: str, figures: Figures) -> str:
        """Top-1 accuracy at every exit."""
        return f"{name}: top-1 " + ", ".join(f"{found['top1']:.2f} at exit {exit}" for exit, found in figures.items())

    def compile(self, backend: str) -> None:
        """Compile the model; the task around it stays as it is."""
        self.model.compile(backend=backend)

    def network(self) -> dict[str, Any]:
        """What the images say of the model, for ``recipe.json``."""
        return {"num_classes": self.model.num_classes, "classes": self.classes}

    def weights_metadata(self) -> dict[str, str]:
        """How the model is built, for a file of weights that is taken out of the run."""
        return built_words(self.recipe, self.model.num_classes)

    def check_outputs(self, stored: dict[str, Any], checkpoint: Path) -> None:
        """Refuse a checkpoint of other classes, or of the same in another order; images without names have its own."""
        trained = stored.get("classes", [])
        other = other_classes(trained, self.classes)
        if other:
            here = self.recipe.data.dir or self.recipe.data.dataset
            raise CheckpointError(
                f"{checkpoint} was {other} ({here}): its outputs mean other classes. Go on with those that it was "
                "trained on, or begin a new run"
            )
        if trained and not self.classes:  # of a stream, say: what follows is refused other classes too
            self.classes = trained
            describe_data(self.model, self.recipe, trained)

    def clip_gradients(self) -> None:
        """Limit the gradients' norm or values, or each unit's gradient by its weights (agc), which spares the head."""
        optim = self.recipe.optim
        if optim.clip is not None:
            self.accelerator.unscale_gradients()
            parameters = self.task.get_clip_parameters(exclude_head=optim.clip_mode == "agc")
            dispatch_clip_grad(parameters, optim.clip, mode=optim.clip_mode)

    def share_buffers(self) -> None:
        """Give every process the mean of all processes' BatchNorm statistics."""
        if self.accelerator.num_processes > 1:
            distribute_bn(self.model, self.accelerator.num_processes, reduce=True)


def _count_classes(recipe: Recipe, images: ImageSets) -> int:
    classes = recipe.model.num_classes or len(images.classes)
    if classes < max(2, len(images.classes)):
        known = f"the images have {len(images.classes)}" if images.classes else "the images do not tell it; set it"
        raise RecipeError(f"model.num_classes={recipe.model.num_classes}: {known}.")
    return classes
