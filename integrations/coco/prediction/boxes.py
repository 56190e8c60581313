"""Whose poses: boxes from a file, or from a detector; without either, one person who fills the picture."""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from torch import nn

from ..data.annotations import read_json
from ..data.coco_file.boxes import is_numbers, refuse_other_forms
from ..data.coco_file.checks import check_annotations, check_images
from ..data.coco_file.normalise import size_of
from ..data.detections import Detected, detection_entries
from ..data.images import PoseDataError
from ..detector import detect_persons
from .frames import Frame
from .sources import PictureFiles

_logger = logging.getLogger(__name__)

Boxes = Callable[[Frame], Detected]
"""What finds the persons of a frame."""

ImageId = int | str


def whole_picture(frame: Frame) -> Detected:
    """One person, who fills the picture."""
    return Detected(np.array([[0.0, 0.0, *frame.size]]), np.ones(1))


@dataclass(frozen=True)
class DetectedBoxes:
    """Boxes by a detector, a frame at a time; see `detect_persons`."""

    detector: nn.Module
    threshold: float = 0.3

    def __call__(self, frame: Frame) -> Detected:
        """The persons that the detector finds, best first."""
        return detect_persons(self.detector, [frame.pixels], self.threshold)[0]


@dataclass
class FileBoxes:
    """Boxes of a file, by the picture's name below its source, by its file name alone, or by its number.

    Attributes:
        path: The file.
        found: What the file calls a picture -> its persons.
        ids: Name -> id, where the file lists its pictures with both.
        sizes: Name -> width and height, where it says them.
    """

    path: Path
    found: Mapping[ImageId, Detected]
    ids: Mapping[str, ImageId] = field(default_factory=dict)
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    nobody: int = 0

    def __call__(self, frame: Frame) -> Detected:
        """The picture's persons; none where the file has no box for it, which is counted.

        Raises:
            PoseDataError: The file says another size of the picture.
        """
        key = self._key(self.sizes, frame.name, frame.number)
        if key is not None and frame.size != self.sizes[key]:
            raise PoseDataError(
                f"{frame.name} is {frame.size[0]} x {frame.size[1]} pixels, and in {self.path} "
                f"{self.sizes[key][0]} x {self.sizes[key][1]}: the boxes are of another copy of the picture, or of one "
                "that is turned (EXIF), which --exif ignore does not"
            )
        place = self._key(self.found, frame.name, frame.number)
        if place is None:
            self.nobody += 1
            return Detected(np.empty((0, 4)), np.empty(0))
        return self.found[place]

    def image_id(self, frame: Frame) -> ImageId:
        """The picture's id in the file; its own number where the file lists no ids."""
        key = self._key(self.ids, frame.name, frame.number)
        return frame.number if key is None else self.ids[key]

    def sized(self, source: PictureFiles) -> PictureFiles:
        """The pictures, turned by their EXIF data only where that gives them the size that the file says."""
        keys = {
            name: self._key(self.sizes, name, number) for name, number in zip(source.names, source.ids, strict=True)
        }
        sizes = {name: self.sizes[key] for name, key in keys.items() if key is not None}
        return dataclasses.replace(source, exif="auto", sizes=sizes) if sizes and source.exif == "apply" else source

    def check(self, names: Sequence[str], numbers: Sequence[int]) -> None:
        """Refuse a file that is about other pictures, before any is read; say how many have no box.

        Raises:
            PoseDataError: It has no box for any of them.
        """
        keys = [self._key(self.found, *each) for each in zip(names, numbers, strict=True)]
        missing = [name for name, key in zip(names, keys, strict=True) if key is None]
        if len(missing) == len(names):
            raise PoseDataError(
                f"{self.path} has no box for any of the {len(names)} pictures: it calls its own "
                f"{', '.join(map(repr, list(self.found)[:3])) or 'nothing'}, these are {', '.join(names[:3])}. A file "
                "name or, where pictures are named by numbers, an image_id is expected"
            )
        if missing:
            _logger.warning("%d of %d pictures have no box in %s: %s", len(missing), len(names), self.path, missing[0])
        unused = len(self.found) - len({key for key in keys if key is not None})
        if unused:
            _logger.info("%d pictures of %s are not among those given", unused, self.path)

    @staticmethod
    def _key(known: Mapping[Any, Any], name: str, number: int) -> Any:
        """What a mapping calls a picture, or ``None``."""
        for key in (name, PurePosixPath(name).name, number, str(number)):
            if key in known:
                return key
        return None


def read_boxes(path: str | Path, threshold: float = 0.0) -> FileBoxes:
    """Boxes from a JSON file of any of these forms; a box is x, y, width, height in pixels.

    - COCO's results: a list of ``image_id`` (a number, or a file's name) or ``file_name``, ``bbox`` and ``score``;
    - an object: what the picture is called -> its boxes, each with four numbers, or a fifth, the score;
    - COCO annotations: ``images``, whose ids are taken over, and ``annotations`` with ``bbox``.

    Args:
        path: The file.
        threshold: Boxes that score less are left out, and boxes without area.

    Raises:
        PoseDataError: Missing, not JSON, of another form, or without a box that scores enough.

    Example:
        >>> boxes = read_boxes("boxes.json", threshold=0.3)
        >>> for found in predict_stream(model, open_source("photos"), boxes): ...
    """
    if not 0 <= threshold <= 1:
        raise PoseDataError(f"threshold={threshold}: a score between 0 and 1 is expected")
    path, data = Path(path), read_json(path)
    ids: dict[str, ImageId] = {}
    sizes: dict[str, tuple[int, int]] = {}
    if isinstance(data, dict) and "images" in data:
        entries, ids, sizes = _of_annotations(data)
    elif isinstance(data, dict):
        entries = _of_mapping(data, path)
    else:
        entries = _by_name(data)
    rows: dict[ImageId, list[list[float]]] = defaultdict(list)
    try:
        for entry in detection_entries(entries, threshold):
            rows[entry["image_id"]].append([*entry["bbox"], entry["score"]])
    except PoseDataError as error:
        raise PoseDataError(f"{path}: {error}") from error
    if not rows:
        raise PoseDataError(f"{path}: there is no box in it")
    tables = {key: np.array(values, dtype=np.float64) for key, values in rows.items()}
    boxes = np.concatenate([table[:, :4] for table in tables.values()])
    refuse_other_forms(boxes, np.full((len(boxes), 2), np.nan), str(path))
    found = {key: Detected(table[:, :4], table[:, 4]) for key, table in tables.items()}
    return FileBoxes(path, found, ids, sizes)


def _by_name(data: Any) -> Any:
    """Entries in which a ``file_name`` stands for the id."""
    if not isinstance(data, list):
        return data
    return [
        {**entry, "image_id": entry["file_name"]} if isinstance(entry, dict) and "file_name" in entry else entry
        for entry in data
    ]


def _of_mapping(data: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    entries = []
    for name, boxes in data.items():
        for box in boxes if isinstance(boxes, list) else [boxes]:
            if not isinstance(box, list) or len(box) not in (4, 5):
                raise PoseDataError(
                    f"{path}: {name!r:.80} has the box {box!r:.80}; a list of boxes is expected, each of x, y, width, "
                    "height and, if there is one, a score"
                )
            entries.append({"image_id": name, "bbox": box[:4], "score": box[4] if len(box) == 5 else 1.0})
    return entries


def _of_annotations(
    data: dict[str, Any],
) -> tuple[list[dict[str, Any]], dict[str, ImageId], dict[str, tuple[int, int]]]:
    """Entries by file name, and what the file says of its pictures."""
    pictures = check_images(data)
    check_annotations(data, pictures)
    images = {own: each for own, each in pictures.items() if isinstance(each.get("file_name"), str)}
    ids = {each["file_name"]: own for own, each in images.items()}
    sizes = {each["file_name"]: size for each in images.values() if (size := size_of(each)) is not None}
    entries = [
        {"image_id": images[each["image_id"]]["file_name"], "bbox": each["bbox"], "score": each.get("score") or 1.0}
        for each in data["annotations"]
        if each["image_id"] in images and is_numbers(each.get("bbox"), 4) and not each.get("iscrowd")
    ]
    return entries, ids, sizes
