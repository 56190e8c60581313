"""Everything a training run consists of, put together from its recipe."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cycledistill.recipes.run.optim import create_optimizer
from cycledistill.recipes.run.session import Figures, TrainingSession, wanted_exits
from cycledistill.recipes.run.step import Inputs
from cycledistill.recipes.weights.checkpoint import CheckpointStore

from ..data.clips import Clip
from ..data.dataset import Batch, LiftWindows, WindowBatches, window_loader
from ..evaluation.measure import evaluate
from ..models.lifter import Lifter
from ..recipe import Recipe
from ..weights.described import words_of
from ..weights.loading import load_lifter_weights
from .build import create_model, eval_settings
from .schedules import learning_rate
from .sources import open_clips
from .task import LiftTask, to_device

_logger = logging.getLogger(__name__)

ADVICE = (
    "check model.name, model.options, hourglass, data.frames and data.confidence; a run for another clip length can "
    "start from it by model.weights=FILE and model.resize=true"
)
"""What to look at when weights do not fit the model."""


@dataclass(kw_only=True)
class Session(TrainingSession):
    """A run in the making."""

    recipe: Recipe
    task: LiftTask
    validation: list[Clip]

    command = "human36m"
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
            _start_from(model, Path(recipe.model.weights), recipe)
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
            optimizer=accelerator.prepare_optimizer(create_optimizer(task, recipe.optim)),
            batches=batches,
            loader=window_loader(windows, batches, data.workers, pin_memory=accelerator.device.type == "cuda"),
            validation=validation,
            exits=exits,
            store=store,
        )

    def weights_metadata(self) -> dict[str, str]:
        """How the model is built and what its numbers mean, for a file of weights that is taken out of the run."""
        return words_of(self.model, self.model.convention, self.recipe.model.name)

    def prepare(self) -> tuple[float, dict[str, float]]:
        """The learning rate."""
        recipe = self.recipe
        return learning_rate(self.step, len(self.batches), recipe.optim.lr, recipe.schedule), {}

    def inputs(self, batch: Batch) -> Inputs:
        """Keypoints, poses and the mask."""
        return to_device(batch, self.accelerator.device)

    def terms(self, inputs: Inputs, logs: bool) -> dict[str, Tensor]:
        """The loss of a batch and its terms."""
        terms: dict[str, Tensor] = self.wrapped(*inputs)
        return terms

    def measure(self, model: Any) -> Figures:
        """Errors at every exit."""
        return evaluate(
            model,
            self.validation,
            settings=eval_settings(self.recipe),
            exits=self.exits,
            progress=self.recipe.run.progress and self.accelerator.is_main_process,
        )

    def look_at_validation(self) -> None:
        """Cut a window out of the clips to validate on."""
        settings = eval_settings(self.recipe)
        LiftWindows(self.validation, settings.frames, centred=settings.mode == "centre")[0]

    def tell(self, name: str, figures: Figures) -> str:
        """The errors of every exit."""
        return "; ".join(f"{name}, exit {exit}: {describe(found)}" for exit, found in figures.items())


def _start_from(model: Lifter, weights: Path, recipe: Recipe) -> None:
    """Load weights to start from; what the model's numbers mean is from now on what the data's do."""
    trained = model.convention
    load_lifter_weights(model, weights, recipe.model.resize)
    if model.convention.unit != trained.unit:
        _logger.warning(
            "%s gives poses in the unit %r and is trained on in %r: the first errors are large for that alone",
            weights,
            model.convention.unit,
            trained.unit,
        )
    model.convention = trained


def describe(found: dict[str, Any]) -> str:
    """The figures of an evaluation in a line: the error never without how much the predictions move."""
    velocity, ratio = found["velocity_frame_mean"], found["temporal_std_ratio_frame_mean"]
    return (
        f"MPJPE {found['mpjpe_frame_mean']:.1f} mm over frames, {found['mpjpe_action_mean']:.1f} mm over actions; "
        f"P-MPJPE {found['p_mpjpe_frame_mean']:.1f} mm; "
        f"PCK {found['pck150_frame_mean']:.1%}, AUC {found['auc_frame_mean']:.1%}; "
        + ("no velocity (single frames); " if velocity is None else f"velocity {velocity:.2f} mm a frame; ")
        + ("no temporal std (no motion)" if ratio is None else f"temporal std {ratio:.2f} of the truth's")
    )
