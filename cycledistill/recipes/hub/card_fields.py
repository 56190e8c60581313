"""What whoever publishes a model may say on its card, and what a run has recorded of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from cycledistill.recipes.errors import RecipeError
from cycledistill.recipes.hub.config import check_names
from cycledistill.recipes.weights.checkpoint import find_checkpoint, read_recipe

METADATA = ("license", "license_name", "license_link", "tags", "datasets", "base_model")
Figures = Mapping[str, float]
R = TypeVar("R")


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
                fine = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
                if not fine:
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


@dataclass(frozen=True)
class RunCards(Generic[R]):
    """What the runs of one training command recorded, for the cards of their models.

    Attributes:
        recipe: From a run's or checkpoint's path to its recipe.
        tell: From a recipe to how it measures, a sentence or more, and what it trains on and how, a clause.
    """

    recipe: Callable[[str | Path], R]
    tell: Callable[[R], tuple[str, str]]

    def card(self, path: str | Path, ema: bool = False) -> dict[str, Any]:
        """What a run recorded of the weights that ``load_trained`` takes from it, as ``model_card_kwargs``.

        Args:
            path: A run's folder or a checkpoint.
            ema: Of the average of the weights.

        Returns:
            ``results``, empty where that step was not evaluated, ``evaluation`` and ``training``. Of files only the
            names.

        Raises:
            CheckpointError: There is no checkpoint, or it holds no recipe of this command.

        Example:
            >>> model = load_trained("runs/a", ema=True)
            >>> model.push_to_hub("user/mine", model_card_kwargs=recorded_card("runs/a", ema=True))
        """
        stored = read_recipe(find_checkpoint(path))
        measured, trained = self.tell(self.recipe(path))
        return {
            "results": recorded_results(stored, ema),
            "evaluation": f"Measured by the run that trained the weights: {measured}",
            "training": recorded_training(stored, ema, trained),
        }


def recorded_results(recipe: Mapping[str, Any], ema: bool) -> dict[str, dict[str, float]]:
    """The figures that a checkpoint's ``recipe.json`` holds of its weights, a column an exit.

    Args:
        recipe: What was read.
        ema: Those of the average of the weights.

    Returns:
        ``{"1 cycle": {"AP": ...}, ...}``; empty where the step was not evaluated.
    """
    measured = (recipe.get("metrics") or {}).get("ema_exits" if ema else "exits") or {}
    return {
        cycles_in_words(exit): {
            name: value for name, value in figures.items() if type(value) in (int, float) and math.isfinite(value)
        }
        for exit, figures in measured.items()
    }


def recorded_training(recipe: Mapping[str, Any], ema: bool, more: str = "") -> str:
    """How a checkpoint came to be, in a sentence: steps, epochs, versions, and ``more``."""
    versions = ", ".join(f"{name} {number}" for name, number in (recipe.get("versions") or {}).items())
    average = " The weights are their running average." if ema else ""
    return (
        f"{recipe['step']} steps, {recipe['epoch']} whole epochs{more}, with {versions or 'unknown versions'}.{average}"
    )


def cycles_in_words(number: object) -> str:
    """``"1 cycle"``, ``"2 cycles"``."""
    return "1 cycle" if str(number) == "1" else f"{number} cycles"
