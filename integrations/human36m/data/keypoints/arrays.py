"""Keypoints in npz and npy files: tables, VideoPose3D's custom data, what MHFormer's and HoT's demonstrations write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cycledistill.recipes.reading.guard import NPY, reading

from ...errors import LiftingDataError
from ..npz import open_npz
from .gaps import NAMES
from .joint_sets import by_names, known_set
from .person import Keypoints, number, table

_PLAIN = (
    "If you trust the file, make a plain one of it: python -m cycledistill.integrations.human36m.data.npz IN.npz "
    "OUT.npz --allow-pickle; or save the keypoints as an array of numbers, (frames, 17, 2 or 3)"
)


def read_npz(path: Path) -> list[Keypoints]:
    """Persons of an npz file: ``keypoints``, ``reconstruction`` or ``positions_2d/...``.

    Raises:
        LiftingDataError: Not there, pickled objects, or none of these.
    """
    data = open_npz(path, remedy=_PLAIN)
    if "keypoints" in data:
        return [stated(data, path)]
    if "reconstruction" in data:
        return _demonstration(data["reconstruction"], path)
    custom = {name: array for name, array in data.items() if name.startswith("positions_2d/")}
    if custom:
        return [_custom(name, array, data, path) for name, array in custom.items()]
    raise LiftingDataError(f"{path} has no 'keypoints'; it has {', '.join(sorted(data)[:5]) or 'nothing'}")


def read_npy(path: Path) -> list[Keypoints]:
    """Persons of an npy file: (T, J, 2 or 3), or (persons, T, J, 2 or 3).

    Raises:
        LiftingDataError: Not there, or no array of numbers.
    """
    with reading(path, NPY, LiftingDataError):
        array = np.load(path, allow_pickle=False)
    return _several(table(array, path))


def stated(data: dict[str, Any], path: Path) -> Keypoints:
    """One person of an object with ``keypoints`` and what is known beside them."""
    pixels, layout = known_set(table(data["keypoints"], path))
    names = data.get("joints")
    if isinstance(names, (list, np.ndarray)) and pixels.ndim == 3 and len(names) == pixels.shape[1]:
        places = by_names([str(name) for name in names], path)
        pixels = pixels if places is None else pixels[:, places]
    if "layout" in data:
        layout = str(data["layout"])
        if layout not in NAMES:
            raise LiftingDataError(f"{path}: layout={layout!r:.80}: one of {', '.join(NAMES)} is expected")
    width, height, rate, first = (number(data, name, path) for name in ("width", "height", "fps", "first_frame"))
    count = len(pixels) if pixels.ndim else 0
    frames = None if first is None else np.arange(int(first), int(first) + count)
    return Keypoints(pixels, width, height, rate, frames=frames, layout=layout)


def _several(array: Any, layout: str | None = None) -> list[Keypoints]:
    found = [array] if array.ndim != 4 else list(array)
    persons = [known_set(one) for one in found]
    return [
        Keypoints(pixels, track=str(place) if len(found) > 1 else None, layout=layout or known)
        for place, (pixels, known) in enumerate(persons)
    ]


def _demonstration(array: Any, path: Path) -> list[Keypoints]:
    """(persons, T, 17, 2) in Human3.6M's order, pixels; the file of 3D poses beside it has the same name in it."""
    if array.ndim != 4 or array.shape[-2:] != (17, 2):
        what = "the 3D poses of a demonstration" if array.ndim == 3 and array.shape[-1] == 3 else "no 2D keypoints"
        raise LiftingDataError(
            f"{path}: reconstruction of shape {array.shape} is {what}; (persons, frames, 17, 2) is expected, as "
            "input_keypoints_2d.npz holds it"
        )
    return _several(table(array, path), "h36m")


def _custom(name: str, array: Any, data: dict[str, Any], path: Path) -> Keypoints:
    """One video of VideoPose3D's ``data_2d_custom_*.npz`` made plain: ``positions_2d/VIDEO/custom/0``."""
    _, video, *rest = name.split("/")
    facts = {side: data.get(f"metadata/video_metadata/{video}/{side}") for side in ("w", "h")}
    width, height = (number(facts, side, path) for side in ("w", "h"))
    track = video if rest in ([], ["custom", "0"]) else "/".join([video, *rest])
    return Keypoints(table(array, path), width, height, track=track)
