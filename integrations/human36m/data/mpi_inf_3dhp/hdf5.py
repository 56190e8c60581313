"""The test set as its authors distribute it: ``TS1/annot_data.mat`` to ``TS6/annot_data.mat``, MATLAB 7.3 files.

These are HDF5, read by h5py (``pip install cycledistill[hdf5]``), and reading them runs nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cycledistill import versions
from cycledistill.recipes.reading.guard import HDF5, reading

from ...errors import LiftingDataError
from .joints import check_joint_count

Annotation = Literal["universal", "annotated"]
POSES = {"universal": "univ_annot3", "annotated": "annot3"}
"""What 3D is taken: of a skeleton of one size, which the data set's evaluation measures on, or of the person's own."""
MOST_FRAMES = 10**6


def read_test_folder(folder: Path, annotation: Annotation) -> dict[str, dict[str, NDArray[Any]]]:
    """Sequence -> ``data_2d`` (T, 17, 2), ``data_3d`` (T, 17, 3) and ``valid`` (T,), as P-STMO's npz names them.

    Raises:
        LiftingDataError: No ``TS*/annot_data.mat`` below the folder, h5py is missing, or a file that is none, lacks an
            array, or has one of another shape.
    """
    files = {path.parent.name: path for path in sorted(folder.glob("TS*/annot_data.mat"))}
    if not files:
        raise LiftingDataError(
            f"{folder} has no TS1/annot_data.mat or other TS*/annot_data.mat: the folder mpi_inf_3dhp_test_set of the "
            "data set, or a data_test_3dhp.npz, is expected"
        )
    return {name: _read(path, annotation) for name, path in files.items()}


def _read(path: Path, annotation: Annotation) -> dict[str, NDArray[Any]]:
    versions.require("h5py")
    try:
        import h5py
    except ImportError as error:
        raise LiftingDataError(
            f"{path} is read by h5py, which is not installed: pip install cycledistill[hdf5]"
        ) from error
    wanted = {"data_2d": "annot2", "data_3d": POSES[annotation], "valid": "valid_frame"}
    with reading(path, HDF5, LiftingDataError), h5py.File(path, "r") as file:
        missing = [name for name in wanted.values() if not _is_held(file, name, h5py)]
        if missing:
            raise LiftingDataError(
                f"{path} has no array {' and no '.join(missing)}; it has {', '.join(sorted(file)) or 'nothing'}"
            )
        return {key: _array(file[name], f"{path}: {name}") for key, name in wanted.items()}


def _is_held(file: Any, name: str, h5py: Any) -> bool:
    """Whether the file itself holds an array of this name: links and outer storage would read other files."""
    link = file.get(name, getlink=True)
    held = isinstance(link, h5py.HardLink) and isinstance(file[name], h5py.Dataset)
    return held and not file[name].is_virtual and file[name].external is None


def _array(stored: Any, where: str) -> NDArray[Any]:
    """MATLAB's (C, 17, 1, T) or (1, T), which HDF5 gives as (T, 1, 17, C) and (T, 1), without the 1."""
    shape = stored.shape
    fine = len(shape) in (2, 4) and 1 <= shape[0] <= MOST_FRAMES and shape[1] == 1 and stored.dtype.kind in "fiub"
    if fine and len(shape) == 4:
        check_joint_count(shape[2], where)
    if not fine or shape[3:] not in ((), (2,), (3,)):
        raise LiftingDataError(
            f"{where}: {stored.dtype} of shape {shape}; numbers of shape (frames, 1, 17, 2 or 3) or (frames, 1), as "
            "HDF5 turns MATLAB's round, are expected"
        )
    return np.asarray(stored[()])[:, 0]
