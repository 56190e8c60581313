"""Files of 3D poses that are written for a user."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cycledistill.files import atomic_write

from ..errors import LiftingDataError
from .npz import write_npz


def check_target(path: str | Path) -> None:
    """Refuse a file that poses cannot be written to, before the work is done.

    Raises:
        LiftingDataError: A suffix other than ``.npz`` and ``.json``, or no such folder.
    """
    path = Path(path)
    if path.suffix not in (".npz", ".json"):
        raise LiftingDataError(f"{path}: a name that ends in .npz or .json is expected")
    if not path.parent.is_dir():
        raise LiftingDataError(f"{path} cannot be written: there is no folder {path.parent}; make it first")


def write_poses(poses: NDArray[np.float32], path: str | Path, frames: NDArray[np.int64] | None = None) -> None:
    """Write poses as ``.npz`` or ``.json``, beside and then renamed.

    Args:
        poses: (T, 17, 3).
        path: The file.
        frames: (T,), the numbers of their pictures, to be written too.

    Raises:
        LiftingDataError: Another suffix, or the file cannot be written.
    """
    path = Path(path)
    check_target(path)
    numbers = {} if frames is None else {"frames": frames}
    try:
        if path.suffix == ".npz":
            write_npz(path, {"poses": poses, **numbers})
        else:
            rounded = {"poses": np.round(poses.astype(float), 5).tolist()}
            text = json.dumps(rounded | {name: each.tolist() for name, each in numbers.items()})
            atomic_write(path, lambda file: file.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise LiftingDataError(f"{path} cannot be written: {error}") from error
