"""A user's file of 2D keypoints: persons over time, from JSON or npz."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cycledistill.recipes.reading.texts import read_json

from ...errors import LiftingDataError
from ..npz import open_npz
from .frame_order import check_counts, frame_numbers, natural, spread, step_of, track_of

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keypoints:
    """One person's keypoints over time.

    Attributes:
        pixels: (T, J, 2), or (T, J, 3) with a confidence.
        width: Of the picture, where the file says it.
        height: The same.
        frame_rate: Frames a second, where the file says it.
        track: Which track of the file; ``None`` where it has none.
        frames: (T,), the numbers of the pictures; ``None`` where they have none.
    """

    pixels: NDArray[np.float32]
    width: float | None = None
    height: float | None = None
    frame_rate: float | None = None
    track: str | None = None
    frames: NDArray[np.int64] | None = None


def read_persons(path: str | Path) -> list[Keypoints]:
    """Read a file of keypoints: one entry a track, those with the most results first.

    npz: ``keypoints``, (T, J, 2 or 3) or (T, 3J), and if known ``width``, ``height``, ``fps`` (frames a second) and
    ``first_frame`` (the number of the first row's picture). JSON: an object with the same names; a list of the frames'
    keypoints; or COCO's list of results, in any order, each with ``keypoints`` (x, y, confidence, x, ...) and
    ``image_id``, and of several persons the number of the track as ``track_id``, ``track``, ``person_id`` or, as
    AlphaPose writes it, ``idx``.

    An ``image_id`` is the number of its picture, or a name in which one number counts (``frame_10.jpg`` comes after
    ``frame_2.jpg``). Numbers that are left out, at the step in which the others go, are pictures without the person:
    their keypoints are 0. Names that count in no such way are taken in their order, numbers in them compared as
    numbers, and nothing is known to be missing. A track begins with its first picture and ends with its last.

    Args:
        path: ``.npz`` or ``.json``.

    Raises:
        LiftingDataError: Not there, of another form, with several persons in a picture that no track tells apart, or
            with results for fewer than half of the pictures that the ids of the only track count.
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
        table = _array(data["keypoints"], path)
        width, height, rate, first = (_number(data, name, path) for name in ("width", "height", "fps", "first_frame"))
        count = len(table) if table.ndim else 0
        frames = None if first is None else np.arange(int(first), int(first) + count)
        return [Keypoints(table, width, height, rate, frames=frames)]
    if isinstance(data, list) and data and all(isinstance(entry, dict) for entry in data):
        return _tracks(data, path)
    return [Keypoints(_array(data, path))]


def read_keypoints(path: str | Path, track: str | None = None, person: int | None = None) -> Keypoints:
    """One person of a file, see :func:`read_persons`: the only one, or the one that is asked for.

    Args:
        path: ``.npz`` or ``.json``.
        track: Its track in the file.
        person: Its place, from 1, among the persons, those with the most results first.

    Raises:
        LiftingDataError: As for :func:`read_persons`; no such person; or there are several, and none is asked for.
    """
    found = choose_persons(read_persons(path), path, track, person)
    if len(found) > 1:
        raise LiftingDataError(f"{path} has {_listed(found)}; give track or person")
    return found[0]


def choose_persons(
    found: list[Keypoints], path: str | Path, track: str | None = None, person: int | None = None
) -> list[Keypoints]:
    """Those of the persons of a file that are asked for; default, all.

    Raises:
        LiftingDataError: There is none of that track or number.
    """
    if track is not None:
        found, every = [one for one in found if one.track == str(track)], found
        if not found:
            raise LiftingDataError(f"{path} has no track {track}; it has {_listed(every)}")
    if person is not None:
        if not 1 <= person <= len(found):
            raise LiftingDataError(f"{path} has no person {person}; it has {_listed(found)}, counted from 1")
        found = [found[person - 1]]
    return found


def _listed(found: list[Keypoints]) -> str:
    if len(found) == 1 and found[0].track is None:
        return "one person and no tracks"
    shown = ", ".join(f"{one.track} ({len(one.pixels)} frames)" for one in found[:8])
    return f"{len(found)} tracks: {shown}{', ...' if len(found) > 8 else ''}"


def _tracks(entries: list[dict[str, Any]], path: Path) -> list[Keypoints]:
    """Results sorted into tracks and by their pictures, zeros for pictures between that have none."""
    if any("keypoints" not in entry or "image_id" not in entry for entry in entries):
        raise LiftingDataError(f"{path}: a list of objects with image_id and keypoints is expected")
    named = [track_of(entry) for entry in entries]
    if None in named and len(set(named)) > 1:
        _logger.warning("%s: %d of %d results have no track and are left out", path, named.count(None), len(named))
        entries, named = zip(*[pair for pair in zip(entries, named, strict=True) if pair[1] is not None], strict=True)
    names = [entry["image_id"] for entry in entries]
    numbers = frame_numbers(names)
    keys: list[Any] = [natural(name) for name in names] if numbers is None else numbers
    owned: dict[str | None, list[int]] = {}
    for place in sorted(range(len(keys)), key=keys.__getitem__):
        owned.setdefault(named[place], []).append(place)
    for track, own in owned.items():
        _check_single(own, keys, names, track if len(owned) > 1 else None, path)
    step = None if numbers is None else step_of(numbers)
    if numbers is not None and step is not None:
        check_counts(numbers, step, path)
    found = []
    for track, own in owned.items():
        keypoints, at = [entries[place]["keypoints"] or None for place in own], None
        if numbers is not None and step is not None:
            counted = [numbers[place] for place in own]
            keypoints = spread(keypoints, counted, step)
            at = counted[0] + step * np.arange(len(keypoints), dtype=np.int64)
        blank: Any = next((_zeros(one) for one in keypoints if one is not None), [])
        table = _array([blank if one is None else one for one in keypoints], path)
        found.append((len(own), Keypoints(table, track=track, frames=at)))
    return [one for _, one in sorted(found, key=lambda pair: -pair[0])]


def _check_single(own: list[int], keys: list[Any], names: list[Any], track: str | None, path: Path) -> None:
    for one, other in pairwise(own):
        if keys[one] == keys[other]:
            of = f" of track {track}" if track is not None else ""
            raise LiftingDataError(
                f"{path}: picture {names[one]} has several persons{of}, and nothing tells which is which from picture "
                "to picture: run the detector with its tracker, which writes a track_id (AlphaPose: idx), or write one "
                "person's results to a file of their own"
            )


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


def _number(data: dict[str, Any], name: str, path: Path) -> float | None:
    if name not in data:
        return None
    try:
        found = float(data[name])
        if name == "first_frame" and not (found.is_integer() and abs(found) < 2**31):
            raise ValueError
        return found
    except (TypeError, ValueError, OverflowError) as error:
        kind = "a whole number" if name == "first_frame" else "a number"
        raise LiftingDataError(f"{path}: {name}={data[name]!r:.80}, {kind} is expected") from error
