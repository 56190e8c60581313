"""From a recipe to a model."""

from __future__ import annotations

from cycledistill import wrap_cyclic, wrap_hourglass
from cycledistill.recipes.distillation import read_distill

from .host import Lifter
from .measure import Protocol
from .recipe import ConfigError, HourglassSection, Recipe
from .registry import create_lifter, lifter_config

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
}


def create_model(recipe: Recipe) -> Lifter:
    """The lifting model of a recipe: with the hourglass and the cycles it says, and fresh weights.

    Raises:
        ConfigError: An unknown model or option, or what the model, the hourglass or the cycles refuse; or a model that
            answers for the centre frame alone, asked for sequences.
    """
    section, data, glass = recipe.model, recipe.data, recipe.hourglass
    for name in sorted(_ELSEWHERE.keys() & section.options.keys()):
        raise ConfigError(f"model.options.{name}: set {_ELSEWHERE[name]} instead.")
    try:
        published = lifter_config(section.name, **section.options)
        if published.mode == "seq2frame" and recipe.evaluate.mode == "sequence":
            raise ConfigError(
                f"evaluate.mode='sequence': {section.name} answers for the centre frame of a window alone; set "
                "evaluate.mode=centre."
            )
        model = create_lifter(
            section.name,
            frames=data.frames,
            in_channels=3 if data.confidence else 2,
            mode="seq2frame" if recipe.evaluate.mode == "centre" else "seq2seq",
            **section.options,
        )
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model: {error}") from error
    if glass.layer is not None:
        _prune_frames(model, glass.layer, glass)
    if recipe.cyclic.cycles is not None:
        try:
            # with an hourglass, "auto" is the levels after its last prune point
            blocks = "auto" if hasattr(model, "hourglass") else "levels"
            wrap_cyclic(model, recipe.cyclic.cycles, read_distill(recipe.cyclic.distill), blocks=blocks)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"cyclic: {error}") from error
    return model


def _prune_frames(model: Lifter, layer: int | list[int], glass: HourglassSection) -> None:
    try:
        wrap_hourglass(model, layer=layer, keep=glass.keep, select=glass.select, recover=glass.recover, **glass.options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"hourglass: {error}") from error


def protocol_of(recipe: Recipe) -> Protocol:
    """How the recipe's model is measured."""
    section = recipe.evaluate
    return Protocol(
        frames=recipe.data.frames,
        mode=section.mode,
        flip=section.flip,
        border=section.border,
        batch_size=section.batch_size,
        precision=recipe.run.precision,
    )
