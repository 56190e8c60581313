"""Reading npz files of arrays, and of the pickled dictionaries that Human3.6M's are distributed as.

VideoPose3D's files hold one object array each, which is a pickle, and reading a pickle can run any code. So they are
read only with ``allow_pickle=True``, and once: this turns one into an npz of plain arrays, named ``S1/Walking/...``,
that every command here reads without the flag:

    python -m cycledistill.integrations.human36m.data.npz data_3d_h36m.npz plain_3d_h36m.npz --allow-pickle
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cycledistill.files import atomic_write
from cycledistill.recipes.reading.guard import NPZ, reading

from ..errors import LiftingDataError

Tree = dict[str, Any]
"""Nested names -> arrays."""


def open_npz(path: str | Path, allow_pickle: bool = False, remedy: str = "") -> dict[str, Any]:
    """The arrays of an npz file by name, all read; an object array of one object as that object.

    Args:
        path: The file.
        allow_pickle: Read object arrays too. That runs whatever code the file holds: only for files you trust.
        remedy: What to do about pickled objects, for the message.

    Raises:
        LiftingDataError: Not there, no npz file, holding pickled objects without ``allow_pickle``, or with it objects
            that cannot be made.
    """
    path = Path(path)
    with reading(path, NPZ, LiftingDataError), path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise LiftingDataError(f"{path} is truncated or no npz file: an npz is a zip archive of arrays")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=allow_pickle) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except ValueError as error:
            if "allow_pickle" not in str(error):
                raise
            raise LiftingDataError(
                f"{path} holds pickled objects, and reading those runs whatever code is in them. "
                + (remedy or "Save its arrays again as arrays of numbers")
            ) from error
    return {
        name: array.item() if array.dtype == object and array.ndim == 0 else array for name, array in arrays.items()
    }


def read_tree(path: str | Path, key: str, allow_pickle: bool = False) -> Tree:
    """The nested dictionary under ``key``, from an object array or from plain arrays named ``key/...``.

    Lists (of cameras) come as dictionaries of ``"0"``, ``"1"``, ...

    Raises:
        LiftingDataError: See :func:`open_npz`; or nothing is under ``key``, or no dictionary.
    """
    arrays = open_npz(
        path,
        allow_pickle,
        "If you trust the file, set data.allow_pickle=true, or make a plain one of it: python -m "
        "cycledistill.integrations.human36m.data.npz IN.npz OUT.npz --allow-pickle",
    )
    if isinstance(arrays.get(key), Mapping):
        flat = flatten(arrays[key], key)
    else:
        below = {name: array for name, array in arrays.items() if name.startswith(f"{key}/")}
        flat = {name: each for name, array in below.items() for each in flatten(array, name).values()}
    if not flat and key in arrays:
        held = arrays[key]
        shape = f"an array of shape {held.shape}" if isinstance(held, np.ndarray) else f"a {type(held).__name__}"
        raise LiftingDataError(
            f"{path}: {key} is {shape} without arrays by subject and action: subject -> action -> array is expected, "
            f"as a dictionary or as plain arrays named {key}/S1/Walking"
        )
    if not flat:
        names = sorted({name.split("/")[0] for name in arrays})
        raise LiftingDataError(f"{path} has no '{key}'; it has {', '.join(names[:5]) or 'nothing'}")
    tree: Tree = {}
    for name, array in flat.items():
        *path_to, leaf = name.split("/")[1:]
        place = tree
        for part in path_to:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise LiftingDataError(f"{path}: {name} lies below {name.rpartition('/')[0]}, which is an array itself")
        if leaf in place:
            raise LiftingDataError(f"{path}: {name} is an array, and other arrays lie below it")
        place[leaf] = array
    return tree


def flatten(value: Any, name: str) -> dict[str, np.ndarray]:
    """Nested mappings and lists of arrays and numbers as arrays with names joined by ``/``; the rest is left."""
    if isinstance(value, Mapping):
        parts = [flatten(entry, f"{name}/{key}") for key, entry in value.items()]
    elif isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.dtype == object):
        parts = [flatten(entry, f"{name}/{number}") for number, entry in enumerate(value)]
    elif isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return {name: value}
    elif isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        return {name: np.asarray(value)}  # the size of a picture
    else:
        return {}  # "layout_name" and other text
    return {key: array for part in parts for key, array in part.items()}


def convert(source: str | Path, target: str | Path, allow_pickle: bool = False) -> int:
    """Write the arrays of an npz file of pickled dictionaries as plain arrays; returns how many.

    Raises:
        LiftingDataError: See :func:`open_npz`; or there is no array in it, or the target cannot be written.
    """
    arrays: dict[str, Any] = {}
    for name, value in open_npz(source, allow_pickle, "If you trust the file, give --allow-pickle").items():
        arrays |= flatten(value, name)
    if not arrays:
        raise LiftingDataError(f"{source} holds no array of numbers")
    try:
        write_npz(target, arrays)
    except OSError as error:
        raise LiftingDataError(f"{target} cannot be written: {error}") from error
    return len(arrays)


def write_npz(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays under their names, whatever the suffix of ``path``; an older file stays whole until then."""
    named: dict[str, Any] = dict(arrays)

    def write(file: Path) -> None:
        with file.open("wb") as open_file:  # given a path, numpy adds a suffix
            np.savez_compressed(open_file, **named)

    atomic_write(path, write)


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        "python -m cycledistill.integrations.human36m.data.npz",
        description="Turn an npz file of pickled dictionaries into a plain one.",
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--allow-pickle", action="store_true", help="run the code in the file; only if you trust it")
    args = parser.parse_args(argv)
    try:
        count = convert(args.source, args.target, args.allow_pickle)
    except LiftingDataError as error:
        parser.exit(2, f"error: {error}\n")
    sys.stdout.write(f"{count} arrays in {args.target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
