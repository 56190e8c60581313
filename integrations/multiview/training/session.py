"""Everything a training run consists of, put together from its recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cycledistill.integrations.human36m.multiview.weights import MODEL
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.run.batches import EpochBatches, batch_loader
from cycledistill.recipes.run.optim import create_optimizer
from cycledistill.recipes.run.session import Figures, TrainingSession, wanted_exits
from cycledistill.recipes.run.step import Inputs
from cycledistill.recipes.run.trained import recipe_of_run
from cycledistill.recipes.weights.checkpoint import CheckpointStore
from cycledistill.recipes.weights.files import network_metadata

from ..data.layout import check_layout, joint_words
from ..data.moments import MultiViewSet
from ..data.samples import MultiViewSamples, Views
from ..evaluation.measure import evaluate
from ..recipe import Recipe, load_recipe
from .build import create_model, eval_settings, start_weights
from .schedules import learning_rate
from .sources import open_set
from .task import MultiViewTask, flat

ADVICE = "check model.options and data.layout"
"""What to look at when weights do not fit the model."""


@dataclass(kw_only=True)
class Session(TrainingSession):
    """A run in the making."""

    recipe: Recipe
    task: MultiViewTask
    validation: MultiViewSet

    command = "multiview"
    unit = "moments"
    advice = ADVICE

    @classmethod
    def assemble(cls, recipe: Recipe, accelerator: Any, store: CheckpointStore, fresh: bool) -> Session:
        """Model, moments, loss and optimiser of a recipe."""
        run, data = recipe.run, recipe.data
        training = open_set(data, "train")
        model = create_model(recipe, training.joints)
        exits = wanted_exits(model, recipe.evaluate.exits)
        validation = open_set(data, "test")
        if fresh:
            start_weights(model, recipe)
        batches = EpochBatches(
            len(training),
            data.batch_size,
            shuffle=True,
            seed=run.seed,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        )
        samples = MultiViewSamples(training, model.config, data.padding)
        task = MultiViewTask(model, recipe.loss).to(accelerator.device)
        return cls(
            recipe=recipe,
            accelerator=accelerator,
            task=task,
            optimizer=accelerator.prepare_optimizer(create_optimizer(task, recipe.optim)),
            batches=batches,
            loader=batch_loader(samples, batches, data.workers, accelerator.device.type == "cuda", run.seed),
            validation=validation,
            exits=exits,
            store=store,
        )

    def network(self) -> dict[str, Any]:
        """The model's architecture, for ``recipe.json``."""
        return {"network": dataclasses.asdict(self.model.config)}

    def check_outputs(self, stored: dict[str, Any], checkpoint: Path) -> None:
        """Refuse a checkpoint of the joints of another layout, or of a layout that names none, or the reverse."""
        trained = recipe_of_run(checkpoint, load_recipe, self.command).data.layout
        asked = self.recipe.data.layout
        check_layout(trained, asked, checkpoint)
        if trained != asked:  # what follows would forget what the joints are called, or call them what nobody said
            raise CheckpointError(
                f"{checkpoint} was trained with data.layout={trained}, and data.layout={asked} is asked for: a run's "
                "joints keep their names. Take the layout that it was trained on"
            )

    def weights_metadata(self) -> dict[str, str]:
        """How the model is built and which joints it finds, for a file of weights that is taken out of the run."""
        return network_metadata(self.model.config, MODEL) | joint_words(self.recipe.data.layout)

    def prepare(self) -> tuple[float, dict[str, float]]:
        """The learning rate."""
        recipe = self.recipe
        return learning_rate(self.step, len(self.batches), recipe.optim.lr, recipe.schedule), {}

    def inputs(self, batch: Sequence[Views]) -> Inputs:
        """Views with their rays, and the joints in them."""
        return flat(batch, self.accelerator.device)

    def terms(self, inputs: Inputs, logs: bool) -> dict[str, Tensor]:
        """The loss of a batch and its terms."""
        terms: dict[str, Tensor] = self.wrapped(*inputs)
        return terms

    def measure(self, model: Any) -> Figures:
        """JDR and errors at every exit."""
        return evaluate(
            model,
            self.validation,
            eval_settings(self.recipe),
            self.exits,
            progress=self.recipe.run.progress and self.accelerator.is_main_process,
        )

    def look_at_validation(self) -> None:
        """Cut the first moment to validate on out of its pictures."""
        MultiViewSamples(self.validation, self.model.config, self.recipe.data.padding)[0]

    def tell(self, name: str, figures: Figures) -> str:
        """The figures of every exit."""
        return "; ".join(f"{name}, exit {exit}: {describe(found)}" for exit, found in figures.items())


def describe(found: dict[str, Any]) -> str:
    """The figures of an evaluation in a line: an error in 3D never without how many joints it is of."""
    text = f"JDR {found['jdr']:.1f} %, {found['error_2d']:.2f} pixels"
    if found["triangulated"] is None:
        return f"{text}; no 3D labels"
    text += f"; {found['triangulated']:.1f} % of the joints triangulated"
    return text + (f", MPJPE {found['mpjpe']:.1f} mm" if found["mpjpe"] is not None else "")
