"""Persons to look at: from a COCO keypoint file, or from a file of person detections."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cycledistill.recipes.reading import texts

from .coco_file.boxes import refuse_another_size, refuse_other_forms, touches
from .coco_file.normalise import Annotations, inside, normalised, size_of
from .detections import detection_entries
from .images import PoseDataError
from .joints import JointSet

_logger = logging.getLogger(__name__)

PIXEL_STD = 200.0
"""Unit of a box's scale: a box of scale 1 is 200 pixels long, the convention of COCO top-down models."""

PADDING = 1.25
"""A crop is the box times this, so that joints near its border stay inside."""


@dataclass(frozen=True)
class Person:
    """One person in one picture.

    Attributes:
        image_id: Id of the picture in the annotation file, as it is written there.
        file_name: The picture's file.
        center: Box centre in pixels, (2,).
        scale: Width and height of the padded box in units of 200 pixels, (2,), in the aspect of the network's input.
        joints: (K, 2) positions in pixels; zeros for a detection.
        visible: (K,) 1 where a joint is labelled.
        score: Score of the box; 1 for an annotated one.
        category_id: Id of the category in the annotation file, as it is written there.
        size: Width and height of the picture, where the annotation file says them.
        box_side: Longer side of the annotated box in pixels; 0 for a detection.
    """

    image_id: Any
    file_name: str
    center: NDArray[np.float32]
    scale: NDArray[np.float32]
    joints: NDArray[np.float32]
    visible: NDArray[np.float32]
    score: float
    category_id: Any = 1
    size: tuple[int, int] | None = None
    box_side: float = 0.0

    @property
    def area(self) -> float:
        """Area of the padded box in square pixels, which OKS suppression measures with."""
        return float(np.prod(self.scale * PIXEL_STD))


def read_json(path: str | Path) -> Any:
    """The contents of a JSON file.

    Raises:
        PoseDataError: The file is missing or is not JSON.
    """
    return texts.read_json(path, PoseDataError)


def box_to_crop(box: Sequence[float], image_size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Centre and padded scale of a box, widened to the aspect of the network's input.

    Args:
        box: x, y, width, height in pixels.
        image_size: Height and width of the network's input.
    """
    x, y, width, height = box
    aspect = image_size[1] / image_size[0]
    center = np.array([x + width / 2, y + height / 2], dtype=np.float32)
    width, height = max(width, aspect * height), max(height, width / aspect)
    return center, np.array([width, height], dtype=np.float32) / np.float32(PIXEL_STD) * np.float32(PADDING)


def annotated_persons(
    annotations: Any, joints: JointSet, image_size: tuple[int, int], categories: Sequence[Any] | None = None
) -> list[Person]:
    """The persons of a COCO keypoint file that count, in file order; see `normalised` for who does.

    Args:
        annotations: The file's contents, or what `normalised` made of them.
        joints: The joints looked for.
        image_size: Height and width of the network's input.
        categories: Ids or names of categories; default: all that have these joints.

    Raises:
        PoseDataError: See `normalised`; or nobody is left, and why each was left out.
    """
    found = normalised(annotations, joints, categories)
    found.check_somebody()
    persons = []
    for entry in found.counted():
        picture = found.data["images"][entry["image_id"] - 1]
        box = inside(entry["bbox"], picture)
        assert box is not None  # it would not count
        points = np.asarray(entry["keypoints"], dtype=np.float32).reshape(-1, 3)
        visible = (points[:, 2] > 0).astype(np.float32)
        person = _person(found, entry, box, points[:, :2], visible, image_size)
        persons.append(dataclasses.replace(person, box_side=float(max(entry["bbox"][2:]))))
    return persons


def detected_persons(
    detections: Any,
    annotations: Any,
    joints: JointSet,
    image_size: tuple[int, int],
    threshold: float = 0.0,
    categories: Sequence[Any] | None = None,
) -> list[Person]:
    """Persons from a list of detections: ``image_id``, ``category_id``, ``bbox`` and ``score``.

    Args:
        detections: The contents of the file. ``category_id`` is the annotation file's id of the category, its name, or
            left out.
        annotations: The contents of the annotation file, which may have no ``annotations``, or what `normalised` made.
        joints: The joints looked for.
        image_size: Height and width of the network's input.
        threshold: Detections that score less are left out.
        categories: Ids or names of categories; default: all that have these joints.

    Raises:
        PoseDataError: Not a list of such entries; detections for pictures that are not in the annotations, or in
            another form than pixels of these pictures; or all are left out, and why.
    """
    if isinstance(annotations, dict):  # a list of pictures alone, as of COCO's test-dev
        annotations = {"annotations": [], **annotations}
    found = normalised(annotations, joints, categories)
    numbers = {own: number for number, own in enumerate(found.image_ids, 1)}
    known = {own: number for number, own in enumerate(found.category_ids, 1)}
    names = found.known_categories() or {"1": 1}
    entries = detection_entries(detections, threshold, names)
    strangers = {entry["image_id"]: None for entry in entries if entry["image_id"] not in numbers}
    if strangers:
        raise PoseDataError(
            f"{len(strangers)} pictures with detections are not in the annotations (first: "
            f"{next(iter(strangers))!r:.80}, ids there are like {found.image_ids[0]!r:.80}): the detections belong to "
            "another split or data set"
        )
    pictures = [found.data["images"][numbers[entry["image_id"]] - 1] for entry in entries]
    boxes = np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)
    sizes = np.array([size_of(picture) or (np.nan, np.nan) for picture in pictures], np.float64).reshape(-1, 2)
    refuse_other_forms(boxes, sizes, "detections")
    refuse_another_size(boxes, sizes, "detections")
    seen = touches(boxes, sizes)
    if not seen.all():
        _logger.info("%d of %d detections left out: outside their picture", int((~seen).sum()), len(seen))
    empty, visible = np.zeros((len(joints), 2), np.float32), np.ones(len(joints), np.float32)
    persons = []
    for entry in (entries[index] for index in np.flatnonzero(seen)):
        own = {"image_id": numbers[entry["image_id"]], "category_id": known.get(entry["category_id"], 1)}
        persons.append(_person(found, own, entry["bbox"], empty, visible, image_size, float(entry["score"])))
    return persons


def _person(
    found: Annotations,
    entry: Mapping[str, Any],
    box: Sequence[float],
    place: NDArray[np.float32],
    visible: NDArray[np.float32],
    image_size: tuple[int, int],
    score: float = 1.0,
) -> Person:
    """A person of an entry with our numbers of picture and category, under the file's own ids."""
    picture = found.data["images"][entry["image_id"] - 1]
    own, category = found.image_ids[entry["image_id"] - 1], found.category_ids
    if not isinstance(picture.get("file_name"), str):
        raise PoseDataError(f"image {own} of the annotation file has no 'file_name'")
    center, scale = box_to_crop(box, image_size)
    return Person(
        image_id=own,
        file_name=picture["file_name"],
        center=center,
        scale=scale,
        joints=place,
        visible=visible,
        score=score,
        category_id=category[entry["category_id"] - 1] if category else 1,
        size=size_of(picture),
    )
