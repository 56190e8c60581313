"""A user's 2D keypoints, persons over time: which of the forms a file or folder has, and which person is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cycledistill.recipes.reading.guard import FILE, reading
from cycledistill.recipes.reading.texts import parse_json, read_json

from ...errors import LiftingDataError
from .arrays import read_npy, read_npz, stated
from .folders import read_folder, read_labels
from .joint_sets import known_set
from .person import Keypoints, Results, table
from .tools import results_of
from .tracks import persons_of

SUFFIXES = (".json", ".jsonl", ".npz", ".npy", ".txt")


def read_persons(path: str | Path) -> list[Keypoints]:
    """Read keypoints: one entry a track, those with the most results first.

    Which forms of which tools are read says the table in the guide, ``docs/lifting.md``. The plain ones are npz or JSON
    with ``keypoints``, (T, J, 2 or 3) or (T, 3J), and if known ``width``, ``height``, ``fps`` (frames a second),
    ``layout`` (``"coco"``, ``"h36m"`` or ``"halpe26"``) and ``first_frame`` (the number of the first row's picture); a
    list of the frames' keypoints; and COCO's list of results, in any order, each with ``keypoints`` (x, y, confidence,
    x, ...) and ``image_id``, and of several persons the number of the track as ``track_id``, ``track``, ``person_id``
    or, as AlphaPose writes it, ``idx``.

    An ``image_id`` is the number of its picture, or a name in which one number counts (``frame_10.jpg`` comes after
    ``frame_2.jpg``). Numbers that are left out, at the step in which the others go, are pictures without the person:
    their keypoints are 0. Names that count in no such way are taken in their order, numbers in them compared as
    numbers, and nothing is known to be missing. A track begins with its first picture and ends with its last.

    Args:
        path: ``.npz``, ``.npy``, ``.json``, ``.jsonl`` or ``.txt``, or a folder of files of one kind.

    Raises:
        LiftingDataError: Not there, of another form, with several persons in a picture that no track tells apart, or
            with results for fewer than half of the pictures that the ids of the only track count.
    """
    path = Path(path)
    if path.is_dir():
        return read_folder(path)
    if path.suffix == ".npz":
        return read_npz(path)
    if path.suffix == ".npy":
        return read_npy(path)
    if path.suffix == ".txt":
        return read_labels([path], path)
    if path.suffix == ".jsonl":
        with reading(path, FILE, LiftingDataError):
            lines = path.read_bytes().splitlines()
        return _of_json([parse_json(line, path, LiftingDataError) for line in lines if line.strip()], path)
    if path.suffix == ".json":
        return _of_json(read_json(path, LiftingDataError), path)
    raise LiftingDataError(f"{path}: a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file of keypoints is expected")


def _of_json(data: Any, path: Path) -> list[Keypoints]:
    results = results_of(data, path)
    if results is not None:
        return persons_of(results, path)
    if isinstance(data, dict):
        if "keypoints" not in data:
            raise LiftingDataError(f"{path} has no 'keypoints'; it has {', '.join(sorted(data)[:5]) or 'nothing'}")
        return [stated(data, path)]
    if isinstance(data, list) and data and all(isinstance(entry, dict) for entry in data):
        return persons_of(Results(data, {}), path)
    pixels, layout = known_set(table(data, path))
    return [Keypoints(pixels, layout=layout)]


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
