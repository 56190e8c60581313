"""Which weights the file that says how a model was wrapped speaks of: it lies beside them, and outlives them.

It is known by their bytes: another model saved to the same folder later, or another file put there, is not spoken of.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

WEIGHTS = "weights"
"""The entry of the file that holds them: name -> SHA-256."""

_ENDING = "*.safetensors"


def weights_files(folder: Path) -> list[Path]:
    """The files of weights in a folder that can be spoken of."""
    return sorted(each for each in folder.glob(_ENDING) if each.is_file())


def stamps(folder: str | os.PathLike[str]) -> dict[Path, tuple[int, ...]]:
    """What changes of each of them when it is written anew."""
    told = ((file, file.stat()) for file in weights_files(Path(folder)))
    return {file: (each.st_ino, each.st_size, each.st_mtime_ns) for file, each in told}


def noted(files: Iterable[Path]) -> dict[str, str]:
    """What is written of the files that are spoken of."""
    return {file.name: _digest(file) for file in files}


def speaks_of(found: Mapping[str, Any], file: Path) -> bool:
    """Whether what was read beside it is of the very weights in a file; all of it is read.

    Raises:
        OSError: It cannot be read.
    """
    told = found.get(WEIGHTS)
    return isinstance(told, Mapping) and told.get(file.name) == _digest(file)


def _digest(file: Path) -> str:
    read = hashlib.sha256()
    with file.open("rb") as opened:
        while part := opened.read(1 << 20):
            read.update(part)
    return read.hexdigest()
