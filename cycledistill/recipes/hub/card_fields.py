"""What whoever publishes a model may say on its card, and what a run has recorded of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cycledistill.recipes.errors import RecipeError
from cycledistill.recipes.hub.config import check_names
from cycledistill.recipes.reading.plain import is_finite

METADATA = ("license", "license_name", "license_link", "tags", "datasets", "base_model")
Figures = Mapping[str, float]


@dataclass(frozen=True)
class CardFields:
    """What whoever publishes a model may say on its card, as ``model_card_kwargs``; everything may be left out.

    Args:
        results: Figures of these weights: name -> number, or columns of them: ``{"1 cycle": {"AP": 0.62}, ...}``.
        evaluation: How they were measured: data, protocol.
        training: How the weights were trained.
        description: What else to know.
        license: Identifier of the weights' licence, ``"apache-2.0"``; ``"other"`` goes with the next two.
        license_name: Its name.
        license_link: Where it is written.
        tags: More tags for the hub's search.
        datasets: Names on the hub of the data it was trained on.
        base_model: Name on the hub of the model it was trained from.
        model_id: Its name on the hub, ``"user/name"``; `push_to_hub` knows it.

    Raises:
        RecipeError: Results that are no finite numbers, or a field of another type.
    """

    results: Mapping[str, float | Figures] = dataclasses.field(default_factory=dict)
    evaluation: str = ""
    training: str = ""
    description: str = ""
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    tags: Sequence[str] = ()
    datasets: Sequence[str] = ()
    base_model: str | None = None
    model_id: str | None = None

    def __post_init__(self) -> None:
        for name in ("tags", "datasets"):
            value = getattr(self, name)
            if isinstance(value, str) or not all(isinstance(each, str) for each in value):
                raise RecipeError(f"model_card_kwargs: {name}={value!r}: a list of words is expected")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type in ("str", "str | None") and not isinstance(value, (str, type(None))):
                raise RecipeError(f"model_card_kwargs: {field.name}={value!r}: text is expected")
        if not isinstance(self.results, Mapping):
            raise RecipeError(f"model_card_kwargs: results={self.results!r}: figures by name are expected")
        for column, figures in self.columns.items():
            for name, value in figures.items():
                if not is_finite(value):
                    raise RecipeError(
                        f"model_card_kwargs: results[{column!r}][{name!r}]={value!r}: a finite number is expected"
                    )

    @property
    def columns(self) -> dict[str, Figures]:
        """The results by columns; figures without a column are in one called "value"."""
        loose = {name: value for name, value in self.results.items() if not isinstance(value, Mapping)}
        columns = {name: value for name, value in self.results.items() if isinstance(value, Mapping)}
        return ({"value": loose} if loose else {}) | columns

    @property
    def hub_fields(self) -> dict[str, Any]:
        """The fields that are read by the hub, those that are set."""
        return {name: getattr(self, name) for name in METADATA if getattr(self, name)}


def card_fields(given: Mapping[str, Any] | None) -> CardFields:
    """What was given as ``model_card_kwargs``.

    Raises:
        RecipeError: A name that is no field of `CardFields`, or a value that they refuse.
    """
    given = given or {}
    check_names(given, [each.name for each in dataclasses.fields(CardFields)], "model_card_kwargs.")
    return CardFields(**given)


def recorded_results(recipe: Mapping[str, Any], ema: bool) -> dict[str, dict[str, float]]:
    """The figures that a checkpoint's ``recipe.json`` holds of its weights, a column an exit.

    Returns:
        ``{"1 cycle": {"AP": ...}, ...}``; empty where the step was not evaluated.
    """
    measured = (recipe.get("metrics") or {}).get("ema_exits" if ema else "exits") or {}
    return {
        cycles_in_words(exit): {name: value for name, value in figures.items() if is_finite(value)}
        for exit, figures in measured.items()
    }


def recorded_training(recipe: Mapping[str, Any], ema: bool, more: str = "") -> str:
    """How a checkpoint came to be, in a sentence: steps, epochs, versions, and ``more``."""
    versions = ", ".join(f"{name} {number}" for name, number in (recipe.get("versions") or {}).items())
    average = " The weights are their running average." if ema else ""
    steps, epochs = recipe.get("step", "?"), recipe.get("epoch", "?")
    return f"{steps} steps, {epochs} whole epochs{more}, with {versions or 'unknown versions'}.{average}"


def cycles_in_words(number: object) -> str:
    """``"1 cycle"``, ``"2 cycles"``."""
    return "1 cycle" if str(number) == "1" else f"{number} cycles"
