"""From a recipe to a model."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from cycledistill import wrap_cyclic
from cycledistill.integrations.human36m.multiview.model import MultiViewPPT, create_multiview
from cycledistill.integrations.human36m.multiview.start import start_from_coco
from cycledistill.integrations.human36m.multiview.weights import MODEL, load_multiview_weights
from cycledistill.recipes.config.distillation import read_distill

from ..data.layout import layout_in
from ..evaluation.measure import EvalSettings
from ..recipe import Recipe, RecipeError

_logger = logging.getLogger(__name__)

JOINTS = {"h36m": 17, "coco": 17}
"""Layout -> how many joints it has."""


def create_model(recipe: Recipe, joints: int) -> MultiViewPPT:
    """The model of a recipe, with the cycles it says and fresh weights.

    Args:
        recipe: The recipe.
        joints: How many the data has.

    Raises:
        RecipeError: An unknown model or option, or what the model or the cycles refuse; data of another number of
            joints than ``data.layout`` has.
    """
    section, layout = recipe.model, recipe.data.layout
    if section.name != MODEL:
        raise RecipeError(f"model.name={section.name!r}: expected {MODEL!r}, of which model.options say the sizes.")
    if JOINTS.get(layout, joints) != joints:
        raise RecipeError(
            f"data.layout={layout!r}: expected 17 joints, and the data has {joints}; for others set data.layout=other."
        )
    if section.options.get("num_keypoints", joints) != joints:
        raise RecipeError(
            f"model.options.num_keypoints={section.options['num_keypoints']!r}: expected {joints}, as the data has; "
            "leave it out."
        )
    try:
        model = create_multiview(**{"num_keypoints": joints, **section.options})
    except (TypeError, ValueError) as error:
        raise RecipeError(f"model.options: {error}") from error
    if recipe.cyclic.cycles is not None:
        _wrap(model, recipe)
    return model


def _wrap(model: MultiViewPPT, recipe: Recipe) -> None:
    """Cycles of the layers on single views; the fused ones are run after each."""
    config = model.config
    patches = config.grid[0] * config.grid[1]
    shapes = [config.view_shape, *([(patches, 3), (3,)] if config.ray_encoding else [])]
    inputs = tuple([torch.zeros(1, *shape)] * 2 for shape in shapes)
    blocks = f"blocks[0:{config.alone}]" if config.alone < config.depth else "blocks"
    try:
        wrap_cyclic(model, recipe.cyclic.cycles or 1, read_distill(recipe.cyclic.distill), blocks=blocks, inputs=inputs)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"cyclic: {error}") from error


def start_weights(model: MultiViewPPT, recipe: Recipe) -> None:
    """Load the weights that a recipe starts from, if any.

    Raises:
        CheckpointError: They are no weights of this model.
    """
    if recipe.model.weights is None:
        return
    path = Path(recipe.model.weights)
    if recipe.model.from_coco:
        start_from_coco(model, path)
        return
    load_multiview_weights(model, path)
    trained, asked = layout_in(path), recipe.data.layout
    if trained is not None and asked != trained:
        _logger.warning(
            "model.weights=%s finds the joints of data.layout=%s, and data.layout=%s is trained: its outputs begin as "
            "those of the joints in the same place",
            path,
            trained,
            asked,
        )


def eval_settings(recipe: Recipe) -> EvalSettings:
    """How the recipe's model is measured."""
    section = recipe.evaluate
    return EvalSettings(
        decode=section.decode,
        head_size=section.head_size,
        threshold=section.threshold,
        padding=recipe.data.padding,
        root=0 if recipe.data.layout == "h36m" else None,
        batch_size=section.batch_size,
        precision=recipe.run.precision,
    )
