"""The frame of the commands that convert files of weights: arguments, errors, exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.reading.texts import parse_yaml


def convert_command(
    parser: argparse.ArgumentParser, convert: Callable[[argparse.Namespace], str], argv: Sequence[str] | None
) -> int:
    """Run ``convert``, and print what it returns.

    Returns:
        0, or 2 for bad input, with the reason on stderr.
    """
    options = parser.parse_args(argv)
    try:
        sys.stdout.write(convert(options) + "\n")
    except (ValueError, OSError) as error:  # CheckpointError is a ValueError
        sys.stderr.write(f"convert: {error}\n")
        return 2
    return 0


def fields_of(options: argparse.Namespace) -> dict[str, Any]:
    """What ``--set`` says, by field.

    Raises:
        CheckpointError: No ``KEY=VALUE``, or a value that is no YAML.
    """
    return dict(_field(text, options.option) for text in options.set)


def _field(text: str, option: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise CheckpointError(f"--set {text}: KEY=VALUE is expected, e.g. {option}")
    return name, parse_yaml(value, f"--set {text}: the value", CheckpointError, name)
