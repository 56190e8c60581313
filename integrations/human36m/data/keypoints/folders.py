"""A folder of files of keypoints: one a picture (OpenPose, mmpose, YOLO, ``predict``), or one a person (npz)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from cycledistill.recipes.reading.guard import FILE, reading
from cycledistill.recipes.reading.numbered import natural
from cycledistill.recipes.reading.texts import read_json

from ...errors import LiftingDataError
from .arrays import read_npz
from .person import Keypoints, Results
from .tools import results_of
from .tracks import persons_of

_POINTS = (51, 34)
"""Numbers of 17 keypoints with visibility and without."""


def read_folder(path: Path) -> list[Keypoints]:
    """Persons of a folder of ``.json``, ``.txt`` or ``.npz`` files, and of nothing else that could be meant.

    Raises:
        LiftingDataError: No such files, several kinds, or files that cannot be read.
    """
    with reading(path, FILE, LiftingDataError):
        files = sorted(each for each in path.iterdir() if each.suffix in (".json", ".txt", ".npz"))
    kinds = Counter(each.suffix for each in files)
    if len(kinds) != 1:
        told = ", ".join(f"{count} {suffix}" for suffix, count in kinds.items()) or "none"
        raise LiftingDataError(
            f"{path}: a folder of .json files (OpenPose, mmpose), .txt (YOLO) or .npz (predict), one kind of them, is "
            f"expected; it has {told}"
        )
    if ".npz" in kinds:
        return _one_each(files)
    if ".txt" in kinds:
        return read_labels(files, path)
    found = [(file, results_of(_parsed(file), file, _picture(file))) for file in files]
    foreign = next((file for file, results in found if results is None), None)
    if foreign is not None:
        raise LiftingDataError(f"{foreign}: the results of one picture are expected, as OpenPose or mmpose write them")
    every: list[Results] = [results for _, results in found if results is not None]
    facts = {name: value for results in every for name, value in results.facts.items()}
    if any(results.facts.get(name, value) != value for results in every for name, value in facts.items()):
        raise LiftingDataError(f"{path}: files of several pictures' sizes or joint sets; one video's are expected")
    return persons_of(Results([entry for results in every for entry in results.entries], facts), path)


def _parsed(file: Path) -> Any:
    """A picture's JSON; an empty list, of a picture with nobody, in the form that says so."""
    return read_json(file, LiftingDataError) or {"people": []}


def _picture(file: Path) -> str:
    return file.stem.removesuffix("_keypoints")


def _one_each(files: list[Path]) -> list[Keypoints]:
    """Each file a person: ``track_0001.npz`` is track 1."""
    found = []
    for file in files:
        numbers = natural(file.stem)[1::2]
        track = str(numbers[0]) if len(numbers) == 1 else file.stem
        found += [replace(one, track=track if one.track is None else f"{track}/{one.track}") for one in read_npz(file)]
    return sorted(found, key=lambda one: -len(one.pixels))


def read_labels(files: list[Path], path: Path) -> list[Keypoints]:
    """YOLO's labels, a file a picture and a line a person: class, box, 17 keypoints, confidence and track if asked for.

    All are shares of the picture. Ultralytics writes no file for a picture without a person.

    Raises:
        LiftingDataError: Another form.
    """
    entries: list[dict[str, Any]] = []
    last: list[list[float]] = []
    for file in files:
        with reading(file, FILE, LiftingDataError):
            lines = file.read_text(encoding="utf-8").splitlines()
        for line in filter(str.strip, lines):
            try:
                values = [float(word) for word in line.split()]
            except ValueError as error:
                raise LiftingDataError(f"{file}: numbers are expected, as YOLO writes them: {error}") from error
            size = next((n for n in _POINTS if 0 <= len(values) - 5 - n <= 2), None)
            if size is None:
                raise LiftingDataError(
                    f"{file}: a line of {len(values)} numbers; YOLO's class, box and 17 keypoints, 39 or 56, with a "
                    "confidence and a track one or two more, are expected"
                )
            points, width = values[5 : 5 + size], 3 if size == 51 else 2
            last.append(values[5 + size :])
            entries.append({"image_id": file.stem, "keypoints": [points[n : n + width] for n in range(0, size, width)]})
    single = all(len(rest) == 1 and rest[0].is_integer() for rest in last)  # a confidence is less than 1
    for entry, rest in zip(entries, last, strict=True):
        if len(rest) == 2 or (single and rest):
            entry["track_id"] = rest[-1]
    facts = {"layout": "coco", "shares": True, "first": _first([file.stem for file in files])}
    return persons_of(Results(entries, facts), path)


def _first(names: list[str]) -> int:
    """The number of a video's first picture, where names can be of a video: ``clip_1``, ``clip_2``, not filled up by 0.

    Other names are those of pictures, which whoever made them numbered.
    Source: Ultralytics, ``LoadImagesAndVideos`` and ``BasePredictor.write_results``.
    """
    ends = [name.rpartition("_")[1:] for name in names]
    return int(all(line and end.isdecimal() and not end.startswith("0") for line, end in ends))
