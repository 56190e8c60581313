"""Files that are to be written: refused before the work is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import LiftingDataError


def check_file(path: str | Path, suffixes: Sequence[str]) -> None:
    """Refuse a file of another kind, or in a folder that is not there.

    Raises:
        LiftingDataError: So it is.
    """
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise LiftingDataError(f"{path}: a name that ends in {' or '.join(suffixes)} is expected")
    if not path.parent.is_dir():
        raise LiftingDataError(f"{path} cannot be written: there is no folder {path.parent}; make it first")
