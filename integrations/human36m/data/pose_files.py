"""Files of 3D poses that are written for a user."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cycledistill.files import atomic_write

from ..errors import LiftingDataError
from .npz import write_npz


def check_target(path: str | Path, suffixes: Sequence[str] = (".npz", ".json")) -> None:
    """Refuse a file that cannot be written, before the work is done.

    Args:
        path: The file.
        suffixes: Those that its name may have; default, of poses.

    Raises:
        LiftingDataError: Another suffix, or no such folder.
    """
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise LiftingDataError(f"{path}: a name that ends in {' or '.join(suffixes)} is expected")
    if not path.parent.is_dir():
        raise LiftingDataError(f"{path} cannot be written: there is no folder {path.parent}; make it first")


def check_apart(written: Iterable[Path], read: Iterable[str | Path]) -> None:
    """Refuse to write over a file that is read, or twice to one.

    Raises:
        LiftingDataError: So it is.
    """
    sources, there = [Path(each) for each in read], set()
    for path in written:
        over = next((each for each in sources if path.exists() and each.exists() and path.samefile(each)), None)
        if over is not None:
            raise LiftingDataError(f"{path} is read, and would be written over: give another name for what is written")
        if path.resolve() in there:
            raise LiftingDataError(f"{path} would be written twice: give each a name of its own")
        there.add(path.resolve())


def write_poses(
    poses: NDArray[np.float32],
    path: str | Path,
    frames: NDArray[np.int64] | None = None,
    **more: NDArray[Any],
) -> None:
    """Write poses as ``.npz`` or ``.json``, beside and then renamed. What is NaN is ``null`` in JSON.

    Args:
        poses: (T, J, 3).
        path: The file.
        frames: (T,), the numbers of their pictures, to be written too.
        **more: Other arrays, by their names.

    Raises:
        LiftingDataError: Another suffix, or the file cannot be written.
    """
    path = Path(path)
    check_target(path)
    arrays: dict[str, NDArray[Any]] = {"poses": poses, **({} if frames is None else {"frames": frames}), **more}
    try:
        if path.suffix.lower() == ".npz":
            write_npz(path, arrays)
        else:
            text = json.dumps({name: _plain(each) for name, each in arrays.items()})
            atomic_write(path, lambda file: file.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise LiftingDataError(f"{path} cannot be written: {error}") from error


def _plain(array: NDArray[Any]) -> object:
    if array.dtype.kind != "f":
        return array.tolist()
    rounded = np.round(array.astype(np.float64), 5)
    if np.isfinite(rounded).all():
        return rounded.tolist()
    named: NDArray[Any] = rounded.astype(object)
    named[~np.isfinite(rounded)] = None
    return named.tolist()
