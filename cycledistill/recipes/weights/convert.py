"""Options of the model, as the commands take them that convert files of weights."""

from __future__ import annotations

import argparse
from typing import Any

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.reading.texts import parse_yaml


def fields_of(options: argparse.Namespace) -> dict[str, Any]:
    """What ``--option`` says, by field.

    Raises:
        CheckpointError: No ``KEY=VALUE``, or a value that is no YAML.
    """
    return dict(_field(text, options.example) for text in options.options)


def _field(text: str, example: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise CheckpointError(f"--option {text}: KEY=VALUE is expected, e.g. {example}")
    return name, parse_yaml(value, f"--option {text}: the value", CheckpointError, name)
