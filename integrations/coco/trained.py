"""What a run left behind: its model, ready to use or to measure."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from cycledistill.files import atomic_write
from cycledistill.recipes.hub.card_fields import recorded_results, recorded_training
from cycledistill.recipes.hub.files import is_published, published_beside
from cycledistill.recipes.run.session import wanted_exits
from cycledistill.recipes.run.trained import find_weights, measure_trained, recipe_of_run, refuse_average
from cycledistill.recipes.weights import read_weights
from cycledistill.recipes.weights.checkpoint import find_checkpoint, load_weights, read_recipe

from .data.joints import JointSet, split_result
from .evaluation.measure import Keep, evaluate
from .models.tokenpose import TokenPose
from .recipe import Recipe, load_recipe
from .training.build import create_model, eval_settings
from .training.joints import with_joints
from .training.session import ADVICE
from .training.sources import open_validation
from .weights.described import check_joints, model_of_file
from .weights.loading import check_network, load_pose_weights

_logger = logging.getLogger(__name__)


def load_trained(path: str | Path, ema: bool = False, recipe: Recipe | None = None) -> TokenPose:
    """The model of a run or checkpoint, wrapped, in eval mode, on the CPU.

    Args:
        path: A run's folder, a checkpoint, a file of weights, a folder that ``save_pretrained`` wrote, or a name on the
            hub. Of a file that does not say itself of which model it is, such as an official one, ``recipe`` says it.
        ema: The average of the weights instead of the weights.
        recipe: Replaces the recipe stored in the checkpoint.

    Raises:
        CheckpointError: Missing, damaged, of another model or other joints than the recipe's, or holding pickled code.

    Example:
        >>> model = load_trained("runs/a")
        >>> model.cyclic.exit = 2  # any-time inference; unwrap_cyclic(model) gives the plain TokenPose
    """
    if recipe is None and Path(path).is_file():
        refuse_average(path, ema)
        folder = published_beside(path)
        if folder is not None:
            return TokenPose.from_pretrained(folder)
        model = model_of_file(path)
        load_pose_weights(model, path)
        return model.eval()
    if is_published(path):
        refuse_average(path, ema)
        return TokenPose.from_pretrained(path)
    file, stored = find_weights(path, ema, recipe)
    kept = stored_recipe(path) if stored else Recipe()
    model = create_model(with_joints(recipe, "val_annotations") if recipe else kept)
    if stored:
        check_joints(kept.data.joint_set.to_dict(), model, file.parent)
        check_network(stored.get("network", {}), model.config, file.parent)
        load_weights(model, read_weights(file), file, ADVICE)
    else:
        load_pose_weights(model, file)
    return model.eval()


def stored_recipe(path: str | Path) -> Recipe:
    """The recipe that a run or checkpoint was trained by.

    Raises:
        CheckpointError: There is no checkpoint, or it holds no recipe of this command.
    """
    return recipe_of_run(path, load_recipe, "coco")


def recorded_card(path: str | Path, ema: bool = False) -> dict[str, Any]:
    """What a run recorded of the weights that `load_trained` takes from it, as ``model_card_kwargs``.

    Args:
        path: A run's folder or a checkpoint.
        ema: Of the average of the weights.

    Returns:
        ``results``, empty where that step was not evaluated, ``evaluation`` and ``training``. Of files only the names.

    Raises:
        CheckpointError: There is no checkpoint, or it holds no recipe of this command.

    Example:
        >>> model = load_trained("runs/a", ema=True)
        >>> model.push_to_hub("user/sdpose", model_card_kwargs=recorded_card("runs/a", ema=True))
    """
    recipe, stored = stored_recipe(path), read_recipe(find_checkpoint(path))
    data, section = recipe.data, recipe.evaluate
    boxes = f"persons in the boxes of {Path(data.detections).name}" if data.detections else "persons in annotated boxes"
    settings = f"{'with' if section.flip else 'without'} flip test, decoding `{section.decode}`"
    optim = f"{recipe.optim.name}, learning rate {recipe.optim.lr:g}, {data.batch_size} persons a process and step"
    return {
        "results": recorded_results(stored, ema),
        "evaluation": (
            f"Measured by the run that trained the weights: {Path(data.val_annotations).name}, {boxes}, {settings}."
        ),
        "training": recorded_training(stored, ema, f" on {Path(data.train_annotations).name} ({optim})"),
    }


def evaluate_trained(recipe: Recipe, path: str | Path) -> dict[str, Any]:
    """AP of a checkpoint or file of weights on the recipe's validation persons, at every exit.

    With ``run.results`` the poses are written there, as ``model_exit1.json`` and, of the average, ``ema_exit1.json``;
    the log says which of these files were there and are replaced.

    Returns:
        ``weights`` (what was measured), ``persons``, ``exits`` and, where there is an average, ``ema_exits``.

    Raises:
        PoseDataError: The data set cannot be read.
        CheckpointError: See :func:`load_trained`.
        OSError: The results cannot be written.
    """
    recipe = with_joints(recipe, "val_annotations")
    names = iter(("model", "ema"))  # in this order they are measured

    def measure(model: TokenPose, accelerator: Any) -> tuple[Any, dict[str, Any]]:
        validation = open_validation(recipe.data, model.config.image_size)
        boxes = "annotated" if recipe.data.detections is None else "detected"
        _logger.info("%d persons in %s boxes", len(validation.persons), boxes)
        figures = evaluate(
            model,
            validation.persons,
            validation.images,
            recipe.data.joint_set,
            validation.truth,
            exits=wanted_exits(model, recipe.evaluate.exits),
            settings=eval_settings(recipe),
            progress=recipe.run.progress and accelerator.is_main_process,
            keep=_into(recipe.run.results, next(names), recipe.data.joint_set),
        )
        return figures, {"persons": len(validation.persons), "boxes": boxes}

    return measure_trained(
        recipe,
        path,
        measure,
        load_trained=load_trained,
        stored_recipe=stored_recipe,
        measured_by=(
            "model",
            "cyclic",
            "prune",
            "evaluate",
            "data.detect",
            "data.categories",
            "data.exif",
            "data.joints",
        ),
    )


def _into(folder: str | None, name: str, joints: JointSet) -> Keep | None:
    """What writes the results of each exit into a folder."""
    if folder is None:
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)

    def keep(exit: int, results: list[dict[str, Any]]) -> None:
        path = Path(folder) / f"{name}_exit{exit}.json"
        if path.exists():
            _logger.warning("%s was there and is replaced", path)
        text = json.dumps([split_result(each, joints) for each in results])
        atomic_write(path, lambda file: file.write_text(text, encoding="utf-8"))
        _logger.info("%d poses in %s", len(results), path)

    return keep
