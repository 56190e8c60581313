"""What travels with lifting weights: how the model is built and what its numbers mean, as words in their file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from cycledistill.metadata.model import words_of as metadata_of
from cycledistill.metadata.shape import name_in
from cycledistill.recipes.errors import RecipeError
from cycledistill.recipes.hub.described import build_described, built_from_words
from cycledistill.recipes.hub.model import class_named
from cycledistill.recipes.weights.files import network_metadata, read_metadata

from ..models.convention import KEY, Convention, convention_words
from ..models.lifter import Lifter

_logger = logging.getLogger(__name__)

_LIBRARY, _CLASS = "library", "model_class"


def words_of(model: Lifter, convention: Convention, name: str | None = None) -> dict[str, str]:
    """What a safetensors file says of a lifting model's weights.

    Args:
        model: A lifting model, wrapped or not.
        convention: What the weights' numbers mean.
        name: Its name in the registry, to be stored too.

    Returns:
        What every file of a model says (``model``: its name, else its class), and ``format``; ``config`` (the network),
        ``built_from`` (that with its class, hourglass and cycles) and ``convention`` as JSON. No ``built_from`` where
        the hourglass is made with functions.
    """
    words = (
        metadata_of(model)
        | network_metadata(model.config, name)
        | convention_words(convention, model.config.in_channels)
    )
    about = {_LIBRARY: "cycledistill", _CLASS: model.own_class().__name__}
    try:
        described = {key: value for key, value in model.hub_config().items() if key != KEY}
    except RecipeError as error:
        _logger.warning("%s; a file of its weights does not say of which model they are", error)
        return words
    return words | built_from_words(about | described)


def model_of_file(path: str | Path) -> Lifter:
    """The model that a file of weights is of, with fresh weights, its hourglass and its cycles as it was saved.

    Raises:
        CheckpointError: The file does not say what its weights are of, or says what cannot be built.
    """
    model = build_described(path, _built)
    model.name = name_in(read_metadata(path))
    return model


def _built(config: dict[str, Any]) -> Lifter:
    chosen = class_named(Lifter, config)
    return chosen.from_hub_config({name: value for name, value in config.items() if name not in (_LIBRARY, _CLASS)})
