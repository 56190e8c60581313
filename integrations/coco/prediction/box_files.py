"""Files of boxes: COCO's results, COCO annotations, or an object of names, read into one form."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.annotations import read_json
from ..data.coco_file.boxes import is_numbers, refuse_other_forms
from ..data.coco_file.checks import check_annotations, check_images
from ..data.coco_file.chosen_categories import categories_of_boxes, own_categories
from ..data.coco_file.normalise import size_of
from ..data.detections import Detected, detection_entries
from ..data.images import PoseDataError
from ..data.joints import JointSet, with_all_joints
from .boxes import FileBoxes, ImageId


def read_boxes(
    path: str | Path,
    threshold: float = 0.0,
    joints: JointSet | None = None,
    categories: Sequence[int | str] | None = None,
) -> FileBoxes:
    """Boxes from a JSON file of any of these forms; a box is x, y, width, height in pixels.

    - COCO's results: a list of ``image_id`` (a number, or a file's name) or ``file_name``, ``bbox`` and ``score``; of
      poses without ``bbox``, the rectangle around the joints, as pycocotools takes it;
    - an object: what the picture is called -> its boxes, each with four numbers, or a fifth, the score;
    - COCO annotations: ``images``, whose ids are taken over, and ``annotations`` with ``bbox``.

    Args:
        path: The file.
        threshold: Boxes that score less are left out, and boxes without area.
        joints: Those of the model. Of annotations whose categories list joints, those categories count that have these.
        categories: Ids or names of the categories that count, as ``data.categories``. By default, and where categories
            say nothing of joints, the only one that is in the file.

    Raises:
        PoseDataError: Missing, not JSON, of another form, without a box that counts, or of several categories of which
            nobody says which are meant.

    Example:
        >>> boxes = read_boxes("boxes.json", threshold=0.3)
        >>> for found in predict_stream(model, open_source("photos"), boxes): ...
    """
    if not 0 <= threshold <= 1:
        raise PoseDataError(f"threshold={threshold}: a score between 0 and 1 is expected")
    path, data = Path(path), read_json(path)
    ids: dict[str, ImageId] = {}
    sizes: dict[str, tuple[int, int]] = {}
    listed: list[dict[str, Any]] = []
    try:
        if isinstance(data, dict) and "images" in data:
            entries, ids, sizes = _of_annotations(data, joints)
            listed = data.get("categories") or []
        else:
            entries = _of_mapping(data) if isinstance(data, dict) else _of_results(data)
        known = categories_of_boxes(entries, listed, joints, categories)
        rows: dict[ImageId, list[dict[str, Any]]] = defaultdict(list)
        for entry in detection_entries(entries, threshold, known):
            rows[entry["image_id"]].append(entry)
    except PoseDataError as error:
        raise PoseDataError(f"{path}: {error}") from error
    if not rows:
        raise PoseDataError(f"{path}: there is no box in it")
    found = {key: _detected(values) for key, values in rows.items()}
    boxes = np.concatenate([each.boxes for each in found.values()])
    unknown = (np.nan, np.nan)
    places = [sizes.get(str(key), unknown) for key, each in found.items() for _ in range(len(each.boxes))]
    refuse_other_forms(boxes, np.array(places, dtype=np.float64).reshape(-1, 2), str(path))
    return FileBoxes(path, found, ids, sizes)


def _detected(entries: list[dict[str, Any]]) -> Detected:
    boxes = np.array([entry["bbox"] for entry in entries], dtype=np.float64)
    scores = np.array([entry["score"] for entry in entries], dtype=np.float64)
    return Detected(boxes, scores, tuple(entry["category_id"] for entry in entries))


def _of_results(data: Any) -> list[dict[str, Any]]:
    """Entries in which a ``file_name`` stands for the id, and around a pose without a box is one."""
    if not isinstance(data, list):
        raise PoseDataError(
            f"it holds {json.dumps(data):.40} and no list of boxes: COCO's results or annotations, or an object of "
            "file names and their boxes, is expected"
        )
    return [_of_result(entry) if isinstance(entry, dict) else entry for entry in data]


def _of_result(entry: dict[str, Any]) -> dict[str, Any]:
    entry = {**entry, "image_id": entry["file_name"]} if "file_name" in entry else entry
    flat = entry.get("keypoints")
    if entry.get("bbox") is None and isinstance(flat, list) and flat and len(flat) % 3 == 0 and is_numbers(flat):
        points = np.array(flat, dtype=np.float64).reshape(-1, 3)[:, :2]
        entry = {**entry, "bbox": [*points.min(0).tolist(), *np.ptp(points, axis=0).tolist()]}
    return entry


def _of_mapping(data: dict[str, Any]) -> list[dict[str, Any]]:
    entries = []
    for name, boxes in data.items():
        for box in boxes if isinstance(boxes, list) else [boxes]:
            if not isinstance(box, list) or len(box) not in (4, 5):
                raise PoseDataError(
                    f"{name!r:.80} has the box {box!r:.80}; a list of boxes is expected, each of x, y, width, height "
                    "and, if there is one, a score"
                )
            entries.append({"image_id": name, "bbox": box[:4], "score": box[4] if len(box) == 5 else 1.0})
    return entries


def _of_annotations(
    data: dict[str, Any], joints: JointSet | None
) -> tuple[list[dict[str, Any]], dict[str, ImageId], dict[str, tuple[int, int]]]:
    """Entries by file name, and what the file says of its pictures."""
    pictures = check_images(data)
    check_annotations(data, pictures)
    data = data if joints is None else with_all_joints(data, joints)
    images = {own: each for own, each in pictures.items() if isinstance(each.get("file_name"), str)}
    ids = {each["file_name"]: own for own, each in images.items()}
    sizes = {each["file_name"]: size for each in images.values() if (size := size_of(each)) is not None}
    categories = own_categories(data["annotations"], data.get("categories") or [])
    entries = [
        {
            "image_id": images[each["image_id"]]["file_name"],
            "category_id": category,
            "bbox": each["bbox"],
            "score": 1.0 if each.get("score") is None else each["score"],
        }
        for each, category in zip(data["annotations"], categories, strict=True)
        if each["image_id"] in images and is_numbers(each.get("bbox"), 4) and not each.get("iscrowd")
    ]
    return entries, ids, sizes
