"""Calibrated cameras from files, as OpenCV and the tools around it write them.

A camera has ``K``, ``dist``, ``R`` (a matrix, or a vector as ``cv2.Rodrigues`` takes it) and ``t``: a point of the
world is at ``R @ point + t`` in camera axes. ``fields.py`` has the other names of these, and the forms of files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import LiftingDataError
from ..cameras import Camera
from .checks import finite_numbers
from .fields import Entry, entries_of
from .storage import SUFFIXES, read_storage

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
"""Unit of ``t`` -> metres."""
_UNIT_NAMES = {"metre": "m", "meter": "m", "metres": "m", "meters": "m"}
_UNIT_NAMES |= {"millimetres": "mm", "millimeters": "mm", "centimetres": "cm", "centimeters": "cm"}
_MODELS = {
    "pinhole": "pinhole", "plumb_bob": "pinhole", "rational_polynomial": "pinhole", "opencv": "pinhole",
    "radtan": "pinhole", "fisheye": "fisheye", "equidistant": "fisheye", "opencv_fisheye": "fisheye",
}  # fmt: skip


def read_calibration(
    paths: str | Path | Sequence[str | Path],
    unit: str | float | None = None,
    size: tuple[int, int] | None = None,
) -> dict[str, Camera]:
    """Cameras by name.

    Args:
        paths: A file, or several whose parts go together (``intri.yml`` and ``extri.yml``), or a folder of them; a file
            of one camera without a name is called as the file.
        unit: Of ``t``: ``"m"``, ``"cm"``, ``"mm"``, or the metres of one unit (0.025: squares of a board). Default:
            what the file says as ``unit``, else metres.
        size: Width and height of the pictures, of cameras of which the files do not say it.

    Returns:
        Cameras with positions in metres.

    Raises:
        LiftingDataError: Files that cannot be read (see :func:`read_storage`) or hold no camera; a camera without K, R
            or t, or with others than such; a unit or a model that is not known; a picture size that is not known, or
            cannot be that of ``K``.

    Example:
        >>> sorted(read_calibration(["intri.yml", "extri.yml"], unit="mm"))
        ['01', '02', '03', '04']
    """
    files = _files(paths)
    told = ", ".join(map(str, files))
    contents = {file: read_storage(file) for file in files}
    found: dict[str, Entry] = {}
    plain = [data for data in contents.values() if isinstance(data, dict)]
    if any("M1" in data for data in plain):  # intrinsics.yml and extrinsics.yml of stereo_calib
        found = entries_of({key: value for data in plain for key, value in data.items()}, "")
    else:
        for file, data in contents.items():
            _join(found, entries_of(data, file.stem), file)
    if not any("K" in entry for entry in found.values()):
        raise LiftingDataError(
            f"{told}: no camera is found in it: K (or camera_matrix), dist, R and t of each are expected, in an object "
            "by the cameras' names, in a list `cameras`, or in a file a camera"
        )
    return {name: _camera(name, entry, f"{told}: camera {name}", unit, size) for name, entry in found.items()}


def _files(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    found = []
    for path in [paths] if isinstance(paths, (str, Path)) else paths:
        path = Path(path)
        own = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES) if path.is_dir() else [path]
        if not own:
            raise LiftingDataError(f"{path}: no file that ends in {', '.join(SUFFIXES)} is in this folder")
        found += own
    if not found:
        raise LiftingDataError("no file of calibration is given")
    return found


def _join(found: dict[str, Entry], more: dict[str, Entry], file: Path) -> None:
    for name, entry in more.items():
        known = found.setdefault(name, {})
        twice = [field for field in ("K", "R", "t", "extrinsics") if field in known and field in entry]
        if twice:
            raise LiftingDataError(f"{file}: camera {name} has {' and '.join(twice)} a second time")
        known |= entry


def _camera(name: str, entry: Entry, where: str, unit: str | float | None, size: tuple[int, int] | None) -> Camera:
    rotation, moved = _pose(entry, where)
    if "K" not in entry:
        raise LiftingDataError(f"{where}: there is no K (camera_matrix); it has {', '.join(sorted(entry))}")
    size = _size(entry, where, size)
    try:
        camera = Camera.from_opencv(
            name,
            rotation,
            finite_numbers(moved, (3,), f"camera {name}: t", flat=True) * _metres(entry, where, unit),
            entry["K"],
            size,
            entry.get("distortion", ()),
            _model(entry, where),
        )
    except LiftingDataError as error:
        raise LiftingDataError(f"{where}: {str(error).removeprefix(f'camera {name}: ')}") from None
    if not ((camera.centre > 0) & (camera.centre < size)).all():
        raise LiftingDataError(
            f"{where}: K has its centre at {camera.centre.tolist()}, outside of a picture of {size[0]} x {size[1]}: "
            "was it calibrated on pictures of another size, are width and height exchanged, or is K not in pixels?"
        )
    return camera


def _pose(entry: Entry, where: str) -> tuple[Any, Any]:
    """R as a matrix, and t."""
    if "extrinsics" in entry and not {"R", "t"} <= set(entry):
        both = np.asarray(entry["extrinsics"], dtype=object)
        if both.shape not in ((3, 4), (4, 4)):
            raise LiftingDataError(f"{where}: extrinsics of shape {both.shape}: (3, 4) or (4, 4), R beside t, expected")
        return both[:3, :3], both[:3, 3]
    missing = [field for field in ("R", "t") if field not in entry]
    if missing:
        raise LiftingDataError(
            f"{where}: there is no {' and no '.join(missing)}: where the cameras are in one world must be known too "
            "(cv2.stereoCalibrate, or cv2.solvePnP of one board that all see)"
        )
    rotation = finite_numbers(entry["R"], (-1,), f"{where}: R", flat=True)
    if len(rotation) != 3:
        return entry["R"], entry["t"]
    if np.linalg.norm(rotation) > 2 * np.pi:
        raise LiftingDataError(
            f"{where}: R={rotation.tolist()}: a rotation vector, in radians, is expected; this is more than a whole "
            "turn: is it in degrees?"
        )
    return rodrigues(rotation), entry["t"]


def rodrigues(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """The (3, 3) rotation about a vector (3,) by its length in radians, as ``cv2.Rodrigues`` has it."""
    angle = float(np.linalg.norm(vector))
    if angle == 0:
        return np.eye(3)
    x, y, z = vector / angle
    across = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn: NDArray[np.float64] = np.eye(3) + np.sin(angle) * across + (1 - np.cos(angle)) * across @ across
    return turn


def _size(entry: Entry, where: str, size: tuple[int, int] | None) -> tuple[int, int]:
    own = entry.get("size", [entry.get("width"), entry.get("height")])
    if isinstance(own, list) and own == [None, None]:
        if size is None:
            raise LiftingDataError(f"{where}: the size of its pictures is not known: give width and height")
        return size
    width, height = finite_numbers(own, (2,), f"{where}: width and height", flat=True).tolist()
    return (width, height)  # whole numbers: checked by the camera


def metres_of(unit: object, where: str) -> float:
    """The metres of one unit.

    Raises:
        LiftingDataError: Neither a known name nor a number above 0.
    """
    name = _UNIT_NAMES.get(str(unit).lower(), str(unit).lower())
    try:
        metres = UNITS[name] if name in UNITS else float(name)
    except ValueError:
        metres = 0.0
    if not 0 < metres < float("inf"):
        raise LiftingDataError(
            f"{where}: unit={unit!r}: one of {', '.join(UNITS)}, or the metres of one unit as a number, is expected"
        )
    return metres


def _metres(entry: Entry, where: str, unit: str | float | None) -> float:
    own = metres_of(entry["unit"], where) if "unit" in entry else None
    given = None if unit is None else metres_of(unit, where)
    if own is not None and given is not None and own != given:
        raise LiftingDataError(f"{where}: the file says unit={entry['unit']!r}, and {unit!r} is given")
    return next((metres for metres in (given, own) if metres is not None), 1.0)


def _model(entry: Entry, where: str) -> str:
    if str(entry.get("fisheye", "")).lower() in ("true", "1"):
        return "fisheye"
    name = str(entry.get("model", "pinhole")).lower()
    if name not in _MODELS:
        raise LiftingDataError(f"{where}: model={entry['model']!r}: one of {', '.join(_MODELS)} is expected")
    return _MODELS[name]
