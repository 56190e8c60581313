"""What a run left behind: its recipe and its model, ready to use or to measure."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import nn

from cycledistill.recipes.config.overrides import changed
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.run.accelerator import open_accelerator
from cycledistill.recipes.weights import read_weights
from cycledistill.recipes.weights.checkpoint import find_checkpoint, load_weights, read_recipe

_logger = logging.getLogger(__name__)

R = TypeVar("R", bound="_Recipe")
M = TypeVar("M", bound=nn.Module)


class _Recipe(Protocol):
    @property
    def run(self) -> Any: ...

    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class TrainedRuns(Generic[R, M]):
    """The runs of one training command, and what is particular to them.

    Attributes:
        load_recipe: From plain data to a recipe, which has ``run`` and ``to_dict()``.
        create_model: ``(recipe, stored) -> model``, wrapped, with fresh weights. ``stored`` is what the checkpoint's
            ``recipe.json`` says; empty for a file of weights alone.
        load_file: ``(model, path, recipe)`` loads a file of weights, ours or an official one.
        advice: What to look at when weights do not fit the model.
        measured_by: Starts of those keys of the recipe that change what is measured: a difference is logged.
        check: ``(stored, model, checkpoint)`` refuses weights that fit in shape and are of another network.
    """

    load_recipe: Callable[[Any], R]
    create_model: Callable[[R, Mapping[str, Any]], M]
    load_file: Callable[[M, Path, R], object]
    advice: str
    measured_by: tuple[str, ...]
    check: Callable[[Mapping[str, Any], M, Path], None] = lambda stored, model, checkpoint: None

    def recipe(self, path: str | Path) -> R:
        """The recipe that a run or checkpoint was trained by.

        Raises:
            CheckpointError: There is no checkpoint, or it holds no recipe of this command.
        """
        folder = find_checkpoint(path)
        try:
            return self.load_recipe(read_recipe(folder)["recipe"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder / 'recipe.json'} is no recipe of this library: {error}") from error

    def load(self, path: str | Path, ema: bool = False, recipe: R | None = None) -> M:
        """The model of a run, a checkpoint or a file of weights, wrapped, in eval mode, on the CPU.

        Args:
            path: A run's folder, a checkpoint, or a file of weights, ours or an official one: then ``recipe`` says of
                which model.
            ema: The average of the weights instead of the weights.
            recipe: Replaces the recipe stored in the checkpoint.

        Raises:
            CheckpointError: Missing, damaged, of another model, or holding pickled code.

        Example:
            >>> model = load_trained("runs/a")
            >>> model.cyclic.exit = 2  # any-time inference; unwrap_cyclic(model) gives the plain model
        """
        path = Path(path)
        if path.is_file():
            if recipe is None:
                raise CheckpointError(f"{path} holds weights only: say of which model by a recipe (--config NAME).")
            model = self.create_model(recipe, {})
            self.load_file(model, path, recipe)
            return model.eval()
        folder = find_checkpoint(path)
        file = folder / ("ema.safetensors" if ema else "model.safetensors")
        stored = read_recipe(folder)
        model = self.create_model(recipe or self.recipe(folder), stored)
        self.check(stored, model, folder)
        load_weights(model, read_weights(file), file, self.advice)
        return model.eval()

    def evaluate(
        self, recipe: R, path: str | Path, measure: Callable[[M, Any], tuple[Any, dict[str, Any]]]
    ) -> dict[str, Any]:
        """Measure a checkpoint or file of weights and, where there is one, the average of the weights.

        Args:
            recipe: How to measure, and the device and precision.
            path: A run's folder, a checkpoint, or a file of weights.
            measure: ``(model, accelerator)`` to the figures by exit, and what they were measured on.

        Returns:
            ``weights`` (what was measured), what ``measure`` said of the data, ``exits`` and, where there is an
            average, ``ema_exits``.

        Raises:
            CheckpointError: See :meth:`load`.
        """
        folder = None if Path(path).is_file() else find_checkpoint(path)
        averaged = folder is not None and (folder / "ema.safetensors").is_file()
        if folder is not None:
            for line in changed(self.recipe(folder).to_dict(), recipe.to_dict()):
                if line.startswith(self.measured_by):
                    _logger.warning("measuring by another recipe than it was trained by: %s", line)
        result: dict[str, Any] = {"weights": str(folder or path)}
        with open_accelerator(recipe.run.device, recipe.run.precision) as accelerator:
            for key, ema in (("exits", False), ("ema_exits", True))[: 2 if averaged else 1]:
                model = self.load(folder or path, ema, recipe).to(accelerator.device)
                figures, facts = measure(model, accelerator)
                result |= facts | {key: figures}
        return result
