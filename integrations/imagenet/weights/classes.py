"""What a file of weights alone says of its classes."""

from __future__ import annotations

from collections.abc import Mapping

import timm

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.reading.texts import parse_json
from cycledistill.recipes.weights.files import State


def names_in(words: Mapping[str, str]) -> list[str]:
    """The names of the classes in a file's words, as `words_of` writes them; empty where it says none."""
    try:
        names = parse_json(words.get("classes", "[]"), "classes", CheckpointError)
    except CheckpointError:
        return []
    return names if isinstance(names, list) and all(isinstance(each, str) for each in names) else []


def count_in(weights: State, architecture: str) -> int | None:
    """The number of classes by the weights of the last layer, where timm says which that is."""
    known = timm.get_pretrained_cfg(architecture) if timm.is_model(architecture) else None
    last = weights.get(f"{known.classifier}.weight") if known is not None else None
    return len(last) if last is not None and last.ndim else None
