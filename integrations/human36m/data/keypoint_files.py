"""A user's file of 2D keypoints: one person over time, from JSON or npz."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cycledistill.recipes.reading.texts import read_json

from ..errors import LiftingDataError
from .npz import open_npz

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keypoints:
    """Keypoints (T, J, 2), or (T, J, 3) with a confidence, in pixels, and the picture's size where the file says it."""

    pixels: NDArray[np.float32]
    width: float | None = None
    height: float | None = None


def read_keypoints(path: str | Path) -> Keypoints:
    """Read a file of keypoints.

    npz: ``keypoints``, (T, J, 2 or 3) or (T, 3J), and ``width`` and ``height`` if known. JSON: an object with the same
    names; a list of the frames' keypoints; or COCO's list of results, one person a picture, in any order, each with
    ``keypoints`` (x, y, confidence, x, ...) and ``image_id``.

    An ``image_id`` is the number of its picture, or a name in which one number counts (``frame_10.jpg`` comes after
    ``frame_2.jpg``). Numbers that are left out, at the step in which the others go, are pictures without a person:
    their keypoints are 0. Names that count in no such way are taken in their order, numbers in them compared as
    numbers, and nothing is known to be missing.

    Args:
        path: ``.npz`` or ``.json``.

    Raises:
        LiftingDataError: Not there, of another form, with several persons in a picture, or with results for fewer
            than half of the pictures that the ids count.
    """
    path = Path(path)
    if path.suffix == ".npz":
        data: Any = open_npz(path, remedy="Save the keypoints as an array of numbers, (frames, 17, 2 or 3)")
    elif path.suffix == ".json":
        data = read_json(path, LiftingDataError)
    else:
        raise LiftingDataError(f"{path}: a .json or .npz file of keypoints is expected")
    if isinstance(data, dict) and "keypoints" not in data:
        raise LiftingDataError(f"{path} has no 'keypoints'; it has {', '.join(sorted(data)[:5]) or 'nothing'}")
    if isinstance(data, dict):
        return Keypoints(_array(data["keypoints"], path), _side(data, "width", path), _side(data, "height", path))
    if isinstance(data, list) and data and all(isinstance(entry, dict) for entry in data):
        return Keypoints(_array(_results(data, path), path))
    return Keypoints(_array(data, path))


def undetected(pixels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which keypoints of (T, J, 2 or 3) are not there, (T, J): x and y are 0, as detectors write it, or not finite."""
    there = np.isfinite(pixels).all(axis=-1) & pixels[..., :2].any(axis=-1)
    return np.logical_not(np.asarray(there))


def fill_gaps(pixels: NDArray[np.float32], source: str, needed: Sequence[int] | None = None) -> NDArray[np.float32]:
    """Keypoints with those that were not detected interpolated from the nearest frames in which they were.

    Args:
        pixels: (T, J, 2 or 3).
        source: Where from, for messages.
        needed: The joints that must be found in some frame; default, all.

    Returns:
        The same shape. What was filled has a confidence of 0, where there are confidences.

    Raises:
        LiftingDataError: A needed joint was detected in no frame.
    """
    missing = undetected(pixels)
    if not missing.any():
        return pixels
    if missing.all():
        raise LiftingDataError(f"{source}: no frame has a person to fill the others from")
    filled, times = np.where(missing[..., None], np.float32(0), pixels), np.arange(len(pixels))
    for joint in np.flatnonzero(missing.any(axis=0)):
        known = np.flatnonzero(~missing[:, joint])
        if len(known):
            for axis in range(2):
                filled[:, joint, axis] = np.interp(times, known, pixels[known, joint, axis])
        elif needed is None or joint in needed:
            raise LiftingDataError(
                f"{source}: keypoint {joint} was detected in no frame, so there is none to fill it from"
            )
    counted = missing if needed is None else missing[:, needed]
    _logger.warning("%s: %s; filled from the frames around them", source, describe_gaps(counted))
    return filled


def describe_gaps(missing: NDArray[np.bool_]) -> str:
    """What is missing, from (T, J), in words."""
    empty = np.asarray(missing.all(axis=1))
    some = np.logical_and(missing.any(axis=1), ~empty)
    words = []
    if empty.any():
        words.append(f"{empty.sum()} of {len(empty)} frames have no person, the first is frame {np.argmax(empty)}")
    if some.any():
        lacking = missing[some].sum()
        words.append(
            f"{some.sum()} of {len(some)} frames lack some of the keypoints (x = y = 0: not detected), {lacking} in "
            f"all, the first is frame {np.argmax(some)}"
        )
    return "; ".join(words)


def _results(entries: list[dict[str, Any]], path: Path) -> list[Any]:
    """Keypoints picture by picture, zeros for those without an entry."""
    if any("keypoints" not in entry or "image_id" not in entry for entry in entries):
        raise LiftingDataError(f"{path}: a list of objects with image_id and keypoints is expected")
    names = [entry["image_id"] for entry in entries]
    numbers = _frame_numbers(names)
    keys: list[Any] = [_natural(name) for name in names] if numbers is None else numbers
    order = sorted(range(len(keys)), key=keys.__getitem__)
    for one, other in pairwise(order):
        if keys[one] == keys[other]:
            raise LiftingDataError(
                f"{path}: picture {names[one]} has several persons; write one person's results to a file of their own"
            )
    found = [entries[place]["keypoints"] or None for place in order]
    if numbers is not None:
        found = _spread(found, sorted(numbers), path)
    blank: Any = next((_zeros(one) for one in found if one is not None), [])
    return [blank if one is None else one for one in found]


def _frame_numbers(names: list[Any]) -> list[int] | None:
    """The numbers that names count by, if it is one number that differs from name to name and nothing else."""
    if all(isinstance(name, int) for name in names):
        return names
    parts = [_natural(name) for name in names]
    counts = list(zip(*(each[1::2] for each in parts), strict=False))
    differing = [column for column in counts if len(set(column)) > 1]
    alike = len({(len(each), *each[::2]) for each in parts}) == 1
    return list(differing[0]) if alike and len(differing) == 1 else None


def _natural(name: Any) -> list[Any]:
    """A name as text, number, text, ...: what it is sorted by."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", str(name)))]


def _spread(found: list[Any], numbers: list[int], path: Path) -> list[Any]:
    """Sorted entries at the places that their numbers count, ``None`` between."""
    first, last = numbers[0], numbers[-1]
    step = math.gcd(*(number - first for number in numbers)) or 1
    count = (last - first) // step + 1
    if count > 2 * len(found):
        raise LiftingDataError(
            f"{path}: image_id counts from {first} to {last} in steps of {step}, and only {len(found)} of these "
            f"{count} pictures have a result; ids are taken for the numbers of a video's frames. If they are none, or "
            "nobody was seen most of the time, write a table (frames, 17, 3) of keypoints, zeros where nobody was seen"
        )
    spread: list[Any] = [None] * count
    for number, keypoints in zip(numbers, found, strict=True):
        spread[(number - first) // step] = keypoints
    return spread


def _zeros(keypoints: Any) -> Any:
    return [_zeros(part) for part in keypoints] if isinstance(keypoints, list) else 0.0


def _array(value: Any, path: Path) -> NDArray[np.float32]:
    if isinstance(value, np.ndarray) and value.dtype.kind not in "fiub":
        raise LiftingDataError(f"{path}: the keypoints are an array of {value.dtype}, numbers are expected")
    try:
        with np.errstate(over="ignore"):  # infinite, and refused as such
            found = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise LiftingDataError(
            f"{path}: the keypoints are no table of numbers, the same for every frame: {error}"
        ) from error
    if found.ndim == 2 and found.shape[1] and found.shape[1] % 3 == 0:
        found = found.reshape(len(found), -1, 3)  # COCO's x, y, confidence, x, ...
    return found


def _side(data: dict[str, Any], name: str, path: Path) -> float | None:
    if name not in data:
        return None
    try:
        return float(data[name])
    except (TypeError, ValueError, OverflowError) as error:
        raise LiftingDataError(f"{path}: {name}={data[name]!r:.80}, a number of pixels is expected") from error
