"""What a checkpoint or a file of weights says of its images, held against those that it is to be measured on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from cycledistill.recipes.errors import DataError, RecipeError
from cycledistill.recipes.reading.texts import parse_json

from ..data.classes import other_classes
from ..recipe import Recipe

_logger = logging.getLogger(__name__)


def check_classes(trained: Sequence[object], found: Sequence[object], weights: object, recipe: Recipe) -> None:
    """Refuse to measure on other classes than the weights are of, or on the same in another order.

    Raises:
        DataError: They are others.
    """
    other = other_classes(trained, found)
    if other:
        where = recipe.data.dir or recipe.data.dataset
        raise DataError(f"{weights} was {other} ({where}): the accuracy would mean nothing.")


def warn_of_other_pictures(words: Mapping[str, str], recipe: Recipe, weights: object) -> None:
    """Tell in the log where pictures are prepared otherwise than the file says that its were."""
    augment = recipe.augment
    own = {
        "mean": list(augment.mean),
        "std": list(augment.std),
        "crop_pct": augment.crop_pct,
        "interpolation": augment.eval_interpolation,
    }
    for name, value in own.items():
        said = _said(words, name)
        if said is not None and said != value:
            _logger.warning("%s says %s %s, and is measured by augment.%s=%s", weights, name, said, name, value)


def _said(words: Mapping[str, str], name: str) -> Any:
    """A word that is JSON; ``None`` where it is not there, or torn."""
    try:
        return parse_json(words.get(name, "null"), name, RecipeError)
    except RecipeError:
        return None
