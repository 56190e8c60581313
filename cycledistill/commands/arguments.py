"""Arguments that several commands take; files that they write, checked before the work, and whole or not there."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path

from cycledistill.files import atomic_write, check_writable
from cycledistill.terminal.flags import add_flag


def add_model(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Add the model to build, see :mod:`cycledistill.commands.named.models`, and ``more`` that it may be."""
    what = "timm name, torchvision:NAME, or hf:TYPE (a model type, or a folder)"
    parser.add_argument("model", metavar="MODEL", help=what + more)
    add_flag(parser, "--img-size")


def add_conversion(
    parser: argparse.ArgumentParser, suffixes: str, models: str | None, option: str, formats: Sequence[str]
) -> None:
    """Add what every command that converts weights takes: ``IN OUT --model NAME --option KEY=VALUE --to FORMAT``.

    Args:
        parser: The command's.
        suffixes: Of files that it reads.
        models: What ``--model`` may be; ``None`` where there is one model.
        option: An example of ``--option``.
        formats: What ``--to`` may be: names of the authors' codes.
    """
    parser.add_argument("input", type=Path, metavar="IN", help=suffixes)
    parser.add_argument("output", type=Path, metavar="OUT", help=".safetensors, .pth or .pt")
    if models is not None:
        add_flag(parser, "--model", models, required=True)
    about = "option of the model, as model.options of a recipe"
    parser.add_argument(
        "--option", dest="options", action="append", default=[], metavar="KEY=VALUE", help=f"{about} ({option})"
    )
    parser.set_defaults(example=option)
    about = f"the other way, to the names of the authors' code ({', '.join(formats)})"
    parser.add_argument("--to", choices=formats, metavar="FORMAT", help=about)


def check_positive(option: str, value: int | None) -> None:
    """Refuse a number below 1, where one was given."""
    if value is not None and value < 1:
        raise ValueError(f"{option} {value}: a whole number of at least 1 is expected")


def no_such(what: str, name: str, known: Sequence[str]) -> str:
    """What is said of a name that is none of ``known``.

    Example:
        >>> no_such("timm model", "deit_tini_patch16_224", timm.list_models())
        "'deit_tini_patch16_224' is no timm model; nearest: deit_tiny_patch16_224"
    """
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    return f"{name!r} is no {what}{hint}"


def check_target(option: str, path: Path) -> None:
    """Refuse a file that cannot be written."""
    try:
        check_writable(path)
    except IsADirectoryError as error:
        raise ValueError(f"{option} {path} is a folder: give the name of a file, such as {path / 'report'}") from error
    except FileNotFoundError as error:
        raise ValueError(f"{option} {path}: there is no folder {path.parent}") from error
    except OSError as error:
        raise ValueError(f"{option} {path} cannot be written: {error.strerror}") from error


def write_text(path: Path, text: str) -> None:
    """Beside, then renamed: a reader never sees half a file."""
    try:
        atomic_write(path, lambda file: file.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}") from error
