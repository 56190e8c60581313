"""The lifting model that a user names: a run, a checkpoint, a file of weights, or a published model."""

from __future__ import annotations

from pathlib import Path

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.checkpoint import find_checkpoint, read_recipe

from ..evaluation.measure import EvalSettings
from ..models.lifter import Lifter
from ..recipe import load_recipe
from ..trained import load_trained, stored_recipe
from ..training.build import eval_settings


def open_model(where: str | Path, config: str | None = None, ema: bool = False) -> tuple[Lifter, EvalSettings]:
    """A trained lifting model in eval mode, on the CPU, and how it is evaluated: by its run's recipe, if it has one.

    Args:
        where: A run's folder, a checkpoint, a file of weights, a folder that ``save_pretrained`` wrote, or a name on
            the Hugging Face hub, ``"user/name"``.
        config: The recipe of a file of weights that does not say it: a YAML file, or a packaged recipe's name.
        ema: The average of the weights instead of the weights.

    Raises:
        CheckpointError: There is no such model, it is damaged or of another kind, or it would run code.
        RecipeError: There is no such recipe.

    Example:
        >>> model, settings = open_model("runs/a")
    """
    path = Path(where)
    if config is not None:
        recipe = load_recipe(config)
        return load_trained(path, ema, recipe), eval_settings(recipe)
    if path.is_dir() and not (path / "config.json").is_file():
        _check_integration(path)
        return load_trained(path, ema), eval_settings(stored_recipe(path))
    model = load_trained(where, ema)
    return model, settings_of(model)


def settings_of(model: Lifter) -> EvalSettings:
    """How a model that comes without a recipe is used: as it was made, for sequences or for centre frames."""
    return EvalSettings(model.config.frames, "centre" if model.mode == "seq2frame" else "sequence")


def _check_integration(path: Path) -> None:
    command = read_recipe(find_checkpoint(path))["command"]
    if command != "human36m":
        raise CheckpointError(
            f"{path} was trained by `cycledistill train {command}`, and keypoints are lifted by models of "
            f"`cycledistill train human36m`{'; cycledistill predict takes it' if command == 'coco' else ''}"
        )
