"""Files that are to be written, and how fast what is in them goes: refused before the work is done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ..errors import LiftingDataError

_FASTEST = 1000


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


def check_rate(frame_rate: float) -> None:
    """Refuse what is no number of frames a second.

    Raises:
        LiftingDataError: So it is.
    """
    if not (math.isfinite(frame_rate) and 0 < frame_rate <= _FASTEST):
        raise LiftingDataError(
            f"frame_rate={frame_rate!r}: frames a second, above 0 and at most {_FASTEST}, are expected"
        )
