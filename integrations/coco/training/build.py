"""From a recipe to a model."""

from __future__ import annotations

from cycledistill.recipes.config.distillation import read_distill

from ..evaluation.measure import EvalSettings
from ..models.plugins import PoseModelConfig
from ..models.registry import build_pose_model, pose_model_config
from ..models.tokenpose import TokenPose
from ..recipe import Recipe, RecipeError


def model_config(recipe: Recipe) -> PoseModelConfig:
    """What the recipe's model consists of, its sections put together.

    Raises:
        RecipeError: An unknown model or option, or a value that the model refuses.
    """
    taken = sorted({"num_keypoints", "cycles", "distill", "prune_layers", "keep"} & recipe.model.options.keys())
    if taken:
        where = {"num_keypoints": "data.joints", "prune_layers": "prune.layers", "keep": "prune.keep"}
        raise RecipeError(f"model.options.{taken[0]}: set {where.get(taken[0], f'cyclic.{taken[0]}')} instead.")
    options = dict(recipe.model.options)
    if recipe.cyclic.cycles is not None:
        options["cycles"] = recipe.cyclic.cycles
    if recipe.prune.layers is not None:
        options["prune_layers"] = recipe.prune.layers
    if recipe.prune.keep is not None:
        options["keep"] = recipe.prune.keep
    distill = options["distill"] = read_distill(recipe.cyclic.distill)
    try:
        if distill is not None and distill.output_weight and distill.output_loss == "kl":
            raise RecipeError(
                f"cyclic.distill={recipe.cyclic.distill!r}: its output loss, KL, compares class logits, and poses are "
                "none; give a mapping with output_loss: mse."
            )
        config = pose_model_config(recipe.model.name, len(recipe.data.joint_set), **options)
    except RecipeError:
        raise
    except (TypeError, ValueError) as error:
        raise RecipeError(f"model: {error}") from error
    _check_pruned(recipe, config)
    return config


def _check_pruned(recipe: Recipe, config: PoseModelConfig) -> None:
    """Refuse settings of a pruning that does not happen."""
    prune = recipe.prune
    given = {"keep": prune.keep, "start_epochs": prune.start_epochs, "anneal_epochs": prune.anneal_epochs}
    set_otherwise = [f"prune.{name}={value}" for name, value in given.items() if value]
    if set_otherwise and not config.prune_layers:
        raise RecipeError(
            f"{', '.join(set_otherwise)}: model.name={recipe.model.name!r} has no layers that prune tokens; set "
            "prune.layers, or choose a model that prunes (ppt_s, sdpose_s_v1_ppt, ...)."
        )


def create_model(recipe: Recipe) -> TokenPose:
    """The pose model of a recipe: pruned and wrapped as it says, with fresh weights and the recipe's joints.

    Raises:
        RecipeError: See :func:`model_config`; or the stack cannot be wrapped so.
    """
    config = model_config(recipe)
    try:
        model = build_pose_model(config)
    except ValueError as error:
        raise RecipeError(f"cyclic or prune: {error}") from error
    model.joints = recipe.data.joint_set.to_dict()
    return model


def eval_settings(recipe: Recipe) -> EvalSettings:
    """How the recipe's model is evaluated."""
    section, data = recipe.evaluate, recipe.data
    return EvalSettings(
        flip=section.flip,
        decode=section.decode,
        nms=section.nms,
        keypoint_threshold=section.keypoint_threshold,
        batch_size=section.batch_size,
        workers=data.workers,
        broken=data.broken_images,
        precision=recipe.run.precision,
        by_category=section.by_category,
        categories=None if data.categories is None else tuple(data.categories),
    )
