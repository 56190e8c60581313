"""From a recipe to a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cycledistill import wrap_cyclic
from cycledistill.plugin.install import handle_of
from cycledistill.recipes.config.distillation import read_distill

from ..evaluation.measure import EvalSettings
from ..models.convention import Convention
from ..models.lifter import Lifter
from ..models.plugins import LifterConfig, add_plugins
from ..models.registry import build_lifter, lifter_config, list_lifters
from ..recipe import Recipe, RecipeError
from .sources import FRAME_RATES

_ELSEWHERE = {
    "frames": "data.frames",
    "in_channels": "data.confidence",
    "joints": "nothing (the data has 17)",
    "mode": "evaluate.mode",
    "cycles": "cyclic.cycles",
    "distill": "cyclic.distill",
    "layer": "hourglass.layer",
    "keep": "hourglass.keep",
    "recover": "hourglass.recover",
    "hourglass": "hourglass.options",
}


def create_model(recipe: Recipe) -> Lifter:
    """The lifting model of a recipe: with the hourglass and the cycles it says, fresh weights, and its convention.

    Raises:
        RecipeError: An unknown model or option, or what the model, the hourglass or the cycles refuse; a model that
            answers for the centre frame alone, asked for sequences; settings of an hourglass that is not there, or one
            that would keep every frame of a window.
    """
    config = _model_config(recipe)
    try:
        model = build_lifter(replace(config, layer=None, keep=None, hourglass={}))
    except (TypeError, ValueError) as error:
        raise RecipeError(f"model: {error}") from error
    model.convention = convention_of_recipe(recipe)
    if config.layer is not None:
        _prune_frames(model, config, recipe.data.frames)
    if recipe.cyclic.cycles is not None:
        try:
            # with an hourglass, "auto" is the levels after its last prune point
            blocks = "auto" if handle_of(model, "hourglass") else "levels"
            wrap_cyclic(model, recipe.cyclic.cycles, read_distill(recipe.cyclic.distill), blocks=blocks)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"cyclic: {error}") from error
    return model


def convention_of_recipe(recipe: Recipe) -> Convention:
    """What the numbers of a model trained by a recipe mean: as the data says, not what the model started from."""
    return Convention(frame_rate=FRAME_RATES[recipe.data.source])


def _model_config(recipe: Recipe) -> LifterConfig:
    """What the recipe's model consists of, cycles apart."""
    section, data, centre = recipe.model, recipe.data, recipe.evaluate.mode == "centre"
    for name in sorted(_ELSEWHERE.keys() & section.options.keys()):
        raise RecipeError(f"model.options.{name}: set {_ELSEWHERE[name]} instead.")
    try:
        published = lifter_config(section.name, **section.options)
        if published.mode == "seq2frame" and not centre:
            raise RecipeError(
                f"evaluate.mode='sequence': {section.name} answers for the centre frame of a window alone; set "
                "evaluate.mode=centre."
            )
        return lifter_config(
            section.name,
            frames=data.frames,
            in_channels=3 if data.confidence else 2,
            mode="seq2frame" if centre else "seq2seq",
            **_hourglass_of(recipe, published),
            **section.options,
        )
    except RecipeError:
        raise
    except (TypeError, ValueError) as error:
        raise RecipeError(f"model: {error}") from error


def _hourglass_of(recipe: Recipe, published: LifterConfig) -> dict[str, Any]:
    """The fields of `LifterConfig` that the recipe's hourglass sets; what it leaves empty is the named model's."""
    name, glass = recipe.model.name, recipe.hourglass
    own = {"layer": glass.layer, "keep": glass.keep, "select": glass.select, "recover": glass.recover}
    given = {key: value for key, value in own.items() if value is not None}
    for key in sorted(own.keys() & glass.options.keys()):
        raise RecipeError(f"hourglass.options.{key}: set hourglass.{key} instead.")
    if published.layer is None and glass.layer is None:
        for key, value in (given | ({"options": glass.options} if glass.options else {})).items():
            having = ", ".join(each for each in list_lifters() if lifter_config(each).layer is not None)
            raise RecipeError(
                f"hourglass.{key}={value!r}: model.name={name!r} has no hourglass; set hourglass.layer and "
                f"hourglass.keep, or choose a model with one ({having})."
            )
        return {}
    if published.keep is None and glass.keep is None:
        raise RecipeError(
            f"hourglass.layer={glass.layer!r} without hourglass.keep: set how many of a window's frames are kept, a "
            "number or a share such as 0.25."
        )
    recover = given.get("recover", published.recover)
    if recover is False and recipe.evaluate.mode == "sequence":
        raise RecipeError(
            "hourglass.recover=false gives the poses of the kept frames alone, so evaluate.mode='sequence' has "
            "frames without a pose: set evaluate.mode=centre, or hourglass.recover to true, local, linear or nearest."
        )
    select = {"select": given.pop("select")} if "select" in given else {}
    several = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    # How a model is measured does not change what it keeps: the centre is forced only where nothing else comes out.
    return several | {"hourglass": {**published.hourglass, "centre": recover is False, **select, **glass.options}}


def _prune_frames(model: Lifter, config: LifterConfig, frames: int) -> None:
    try:
        add_plugins(model, config)
        handle: Any = model.hourglass
        kept = handle.settings.count(len(handle.layers) - 1, frames)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"hourglass: {error}") from error
    if kept == frames:
        raise RecipeError(
            f"hourglass.keep={config.keep!r}: all {frames} frames of a window (data.frames) would be kept and nothing "
            "pruned; keep fewer, or a share of them such as 0.25, or choose a model without an hourglass."
        )


def eval_settings(recipe: Recipe) -> EvalSettings:
    """How the recipe's model is measured."""
    section = recipe.evaluate
    return EvalSettings(
        frames=recipe.data.frames,
        mode=section.mode,
        flip=section.flip,
        border=section.border,
        batch_size=section.batch_size,
        precision=recipe.run.precision,
    )
