"""What a file of weights says that its model is built from: the hub's ``config.json`` as a word in its metadata.

So that a file alone is enough to build the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cycledistill.recipes.errors import CheckpointError, RecipeError
from cycledistill.recipes.reading.guard import first_line
from cycledistill.recipes.reading.plain import check_plain
from cycledistill.recipes.reading.texts import parse_json
from cycledistill.recipes.weights.files import read_metadata

T = TypeVar("T")

_BUILT_FROM = "built_from"


def built_from_words(config: Mapping[str, Any]) -> dict[str, str]:
    """What a model is built from, as plain data, as metadata of a file of weights."""
    return {_BUILT_FROM: json.dumps(config)}


def build_described(path: str | Path, build: Callable[[dict[str, Any]], T]) -> T:
    """The model that a file of weights is of.

    Args:
        path: The file.
        build: The model, with fresh weights, of what `built_from_words` was given.

    Raises:
        CheckpointError: The file does not say what its weights are of, or says what cannot be built.
    """
    words = read_metadata(path)
    if _BUILT_FROM not in words:
        raise CheckpointError(
            f"{path} holds weights only, and does not say of which model: give a recipe, load_trained(path, "
            "recipe=...); on the command line --config NAME"
        )
    config = plain_object(words[_BUILT_FROM], path, "what the model is built from")
    try:
        return build(config)
    except Exception as error:  # of a size that is out of reach PyTorch says so by errors of many types
        raise CheckpointError(f"{path}: the model that it describes cannot be built: {first_line(error)}") from error


def plain_object(text: str, path: object, what: str) -> dict[str, Any]:
    """A JSON object of plain data.

    Raises:
        CheckpointError: It is none.
    """
    try:
        found = parse_json(text, path, CheckpointError)
        if not isinstance(found, dict):
            raise RecipeError(f"{text[:80]!r}")
        check_plain(found, what, RecipeError)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: {what} is expected to be a JSON object of plain data: {error}") from error
    return found
