"""The frame of the commands that convert files of weights: arguments, errors, exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.reading.texts import parse_yaml


def convert_parser(prog: str, description: str, suffixes: str, models: str, option: str) -> argparse.ArgumentParser:
    """A parser with what every such command takes: ``IN OUT --model NAME --set FIELD=VALUE``."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("input", type=Path, metavar="IN", help=suffixes)
    parser.add_argument("output", type=Path, metavar="OUT", help=".safetensors, .pth or .pt")
    parser.add_argument("--model", required=True, metavar="NAME", help=models)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help=f"e.g. {option}")
    parser.set_defaults(option=option)
    return parser


def convert_command(
    parser: argparse.ArgumentParser, convert: Callable[[argparse.Namespace], str], argv: Sequence[str] | None
) -> int:
    """Run ``convert``, with ``--set`` read as ``options.fields``, and print what it returns.

    Returns:
        0, or 2 for bad input, with the reason on stderr.
    """
    options = parser.parse_args(argv)
    try:
        options.fields = dict(_field(text, options.option) for text in options.set)
        sys.stdout.write(convert(options) + "\n")
    except (ValueError, OSError) as error:  # CheckpointError is a ValueError
        sys.stderr.write(f"convert: {error}\n")
        return 2
    return 0


def _field(text: str, option: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise CheckpointError(f"--set {text}: FIELD=VALUE is expected, e.g. {option}")
    return name, parse_yaml(value, f"--set {text}: the value", CheckpointError, name)
