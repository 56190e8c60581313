"""Files that commands write: checked before the work, whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

from cycledistill.commands.errors import BadInput


def check_target(option: str, path: Path) -> None:
    """Refuse a file that cannot be written, before the work is done."""
    if os.path.isdir(path):  # which a name that is too long is not; Path.is_dir raises
        raise BadInput(f"{option} {path} is a folder: give the name of a file, such as {path / 'report'}")
    if not path.parent.is_dir():
        raise BadInput(f"{option} {path}: there is no folder {path.parent}")
    try:
        _beside(path).touch()
        _beside(path).unlink()
    except OSError as error:
        raise BadInput(f"{option} {path} cannot be written: {error.strerror}") from error


def write_text(path: Path, text: str) -> None:
    """Beside, then renamed: a reader never sees half a file."""
    try:
        _beside(path).write_text(text, encoding="utf-8")
        os.replace(_beside(path), path)
    except OSError as error:
        _beside(path).unlink(missing_ok=True)
        raise BadInput(f"{path} cannot be written: {error.strerror}") from error


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")
