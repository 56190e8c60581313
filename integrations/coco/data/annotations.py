"""Persons to look at: from a COCO keypoint file, or from a file of person detections."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cycledistill.recipes.reading import texts
from cycledistill.recipes.reading.plain import is_finite

from .images import PoseDataError
from .joints import JointSet

PIXEL_STD = 200.0
"""Unit of a box's scale: a box of scale 1 is 200 pixels long, the convention of COCO top-down models."""

_logger = logging.getLogger(__name__)

PADDING = 1.25
"""A crop is the box times this, so that joints near its border stay inside."""


@dataclass(frozen=True)
class Person:
    """One person in one picture.

    Attributes:
        image_id: Id of the picture in the annotation file.
        file_name: The picture's file.
        center: Box centre in pixels, (2,).
        scale: Width and height of the padded box in units of 200 pixels, (2,), in the aspect of the network's input.
        joints: (K, 2) positions in pixels; zeros for a detection.
        visible: (K,) 1 where a joint is labelled.
        score: Score of the box; 1 for an annotated one.
    """

    image_id: int
    file_name: str
    center: NDArray[np.float32]
    scale: NDArray[np.float32]
    joints: NDArray[np.float32]
    visible: NDArray[np.float32]
    score: float

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


def annotated_persons(annotations: Any, joints: JointSet, image_size: tuple[int, int]) -> list[Person]:
    """The persons of a COCO keypoint file that have a labelled joint, in file order.

    Crowds, persons without a labelled joint and boxes without area inside the picture are left out and counted in the
    log.

    Raises:
        PoseDataError: The file has no images or annotations, a person has another number of joints or joints that are
            not finite, or nobody is left.
    """
    check_annotations(annotations)
    images = _images(annotations)
    persons, left_out = [], {"a crowd": 0, "no labelled joint": 0, "no box inside the picture": 0}
    for entry in annotations["annotations"]:
        if entry.get("iscrowd"):
            left_out["a crowd"] += 1
            continue
        points = _points(entry, joints)
        if points is None or not (points[:, 2] > 0).any():
            left_out["no labelled joint"] += 1
            continue
        picture = images[entry["image_id"]]
        box = _inside(entry["bbox"], picture)
        if box is None or entry.get("area", 1) <= 0:
            left_out["no box inside the picture"] += 1
            continue
        center, scale = box_to_crop(box, image_size)
        visible = (points[:, 2] > 0).astype(np.float32)
        place = points[:, :2]
        persons.append(Person(entry["image_id"], _file_name(picture), center, scale, place, visible, 1.0))
    for reason, number in left_out.items():
        if number:
            _logger.info("%d of %d annotations left out: %s", number, len(annotations["annotations"]), reason)
    if not persons:
        raise PoseDataError(
            f"none of {len(annotations['annotations'])} annotations can be used: {left_out}; a COCO keypoint file with "
            f"the {len(joints)} joints of {joints.name} is expected"
        )
    return persons


def detected_persons(
    detections: Any,
    annotations: Any,
    joints: JointSet,
    image_size: tuple[int, int],
    threshold: float = 0.0,
) -> list[Person]:
    """Persons from a list of detections: ``image_id``, ``category_id`` (1), ``bbox`` and ``score``.

    Raises:
        PoseDataError: Not a list of such entries, or detections for pictures that are not in the annotations.
    """
    images = _images(annotations)
    persons, empty = [], np.zeros((len(joints), 2), np.float32)
    strangers: dict[Any, None] = {}
    for entry in detection_entries(detections, threshold):
        picture = images.get(entry["image_id"])
        if picture is None:
            strangers[entry["image_id"]] = None
            continue
        if min(entry["bbox"][2:]) > 0:
            center, scale = box_to_crop(entry["bbox"], image_size)
            score = float(entry["score"])
            visible = np.ones(len(joints), np.float32)
            persons.append(Person(entry["image_id"], _file_name(picture), center, scale, empty, visible, score))
    if strangers:
        raise PoseDataError(
            f"{len(strangers)} pictures with detections are not in the annotations (first: {next(iter(strangers))}): "
            "the detections belong to another split or data set"
        )
    return persons


def detection_entries(detections: Any, threshold: float = 0.0) -> Iterator[dict[str, Any]]:
    """The persons among the entries of a file of detections whose score is at least ``threshold``.

    Raises:
        PoseDataError: Not a list of ``image_id``, ``category_id``, ``bbox`` and ``score``.
    """
    if not isinstance(detections, list):
        raise PoseDataError(
            "the detections file holds no list; a list of image_id, category_id, bbox, score is expected"
        )
    for entry in detections:
        missing = [key for key in ("image_id", "bbox", "score") if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise PoseDataError(f"a detection has no {missing[0]!r}: {str(entry)[:100]}")
        if not _is_id(entry["image_id"]):
            raise PoseDataError(f"a detection has image_id {entry['image_id']!r:.80}: {_AN_ID} is expected")
        if not is_numbers(entry["bbox"], 4) or not is_numbers([entry["score"]], 1):
            raise PoseDataError(
                f"a detection of image {entry['image_id']} has bbox {entry['bbox']!r:.80} and score "
                f"{entry['score']!r:.80}: x, y, width, height is expected, and one score, all finite numbers"
            )
        if entry.get("category_id", 1) == 1 and entry["score"] >= threshold:
            yield entry


def is_numbers(values: Any, count: int | None = None) -> bool:
    """Whether ``values`` is a list of finite numbers, of this length where one is given."""
    if not isinstance(values, (list, tuple)) or (count is not None and len(values) != count):
        return False
    return all(map(is_finite, values))


def check_annotations(annotations: Any) -> None:
    """Refuse what is no COCO keypoint file, entry by entry.

    Raises:
        PoseDataError: The entry and the key at fault are named.
    """
    images = _images(annotations)
    seen = set()
    for entry in annotations["annotations"]:
        missing = [key for key in ("id", "image_id", "bbox") if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise PoseDataError(f"an annotation has no {missing[0]!r}: {str(entry)[:100]}")
        if not _is_id(entry["id"]) or not _is_id(entry["image_id"]):
            raise PoseDataError(
                f"an annotation has id {entry['id']!r:.80} and image_id {entry['image_id']!r:.80}: {_AN_ID} is expected"
            )
        name = f"annotation {entry['id']}"
        if entry["id"] in seen:
            raise PoseDataError(f"{name} is there twice: ids of annotations must differ")
        seen.add(entry["id"])
        if entry["image_id"] not in images:
            raise PoseDataError(f"{name} is of image {entry['image_id']}, which is not listed")
        if not is_numbers(entry["bbox"], 4):
            raise PoseDataError(f"{name} has bbox {entry['bbox']!r:.80}: four finite numbers are expected")
        if not is_numbers(entry.get("keypoints", [])):
            raise PoseDataError(f"{name} holds no list of keypoints, or one that is not a finite number")
        _check_numbers(entry, ("area", "num_keypoints", "category_id"), name)
        if entry.get("iscrowd", 0) not in (0, 1):
            raise PoseDataError(f"{name} has iscrowd {entry['iscrowd']!r:.80}: 0 or 1 is expected, or leave it out")


_AN_ID = "a whole number, or text,"


def _is_id(value: object) -> bool:
    return isinstance(value, str) or (is_finite(value) and abs(value) < 2**63 and value == int(value))  # type: ignore


def _check_numbers(entry: dict[str, Any], names: Sequence[str], what: str) -> None:
    """Those of the fields that are there are finite numbers."""
    for name in names:
        if name in entry and not is_finite(entry[name]):
            raise PoseDataError(f"{what} has {name} {entry[name]!r:.80}: a finite number is expected, or leave it out")


def _images(annotations: Any) -> dict[int, dict[str, Any]]:
    for key in ("images", "annotations", "categories"):
        given = annotations.get(key, [] if key == "categories" else None) if isinstance(annotations, dict) else None
        if not isinstance(given, list):
            raise PoseDataError(f"no list {key!r} in the annotation file: a COCO keypoint file is expected")
    if not annotations["images"]:
        raise PoseDataError("the annotation file lists no images")
    for name, key in (("an image", "images"), ("a category", "categories")):
        for entry in annotations.get(key, ()):
            if not isinstance(entry, dict) or "id" not in entry:
                raise PoseDataError(f"{name} of the annotation file has no 'id': {str(entry)[:100]}")
            if not _is_id(entry["id"]):
                raise PoseDataError(f"{name} of the annotation file has id {entry['id']!r:.80}: {_AN_ID} is expected")
    for picture in annotations["images"]:
        _check_numbers(picture, ("width", "height", "crowdIndex"), f"image {picture['id']}")
    if len({isinstance(picture["id"], str) for picture in annotations["images"]}) > 1:
        raise PoseDataError("ids of images are numbers and text: one of the two is expected, for all")
    return {picture["id"]: picture for picture in annotations["images"]}


def _file_name(picture: dict[str, Any]) -> str:
    if not isinstance(picture.get("file_name"), str):
        raise PoseDataError(f"image {picture['id']} of the annotation file has no 'file_name'")
    return str(picture["file_name"])


def _points(entry: dict[str, Any], joints: JointSet) -> NDArray[np.float32] | None:
    flat = entry.get("keypoints")
    if flat is None:
        return None
    if len(flat) != 3 * len(joints):
        raise PoseDataError(
            f"annotation {entry['id']} holds {len(flat)} keypoint numbers: {3 * len(joints)} are expected "
            f"({len(joints)} joints of {joints.name}, each x, y, visibility)"
        )
    with np.errstate(over="ignore"):  # a number that single precision does not hold is named below
        points = np.asarray(flat, dtype=np.float32).reshape(-1, 3)
    if not np.isfinite(points).all():
        raise PoseDataError(f"annotation {entry['id']}: a keypoint number is beyond what single precision holds")
    return points


def _inside(box: Sequence[float], picture: dict[str, Any]) -> tuple[float, float, float, float] | None:
    """The box cut at the picture's border, or ``None`` where nothing of it is left."""
    x, y, width, height = box
    left, top = max(0.0, x), max(0.0, y)
    right = min(picture.get("width", np.inf) - 1, left + max(0.0, width - 1))
    bottom = min(picture.get("height", np.inf) - 1, top + max(0.0, height - 1))
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None
