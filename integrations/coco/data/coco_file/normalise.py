"""An annotation file in the one form that person lists and pycocotools are both given, and the way back to its own ids.

pycocotools takes for granted what COCO's own files fulfil and other tools' exports do not: no annotation has the id 0
(which it reads as "not matched"), ids are whole numbers, ``iscrowd`` is 0 or 1, ``num_keypoints`` and ``area`` are
there and right. Who counts is decided here alone, for training, evaluation and prediction.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..images import PoseDataError
from ..joints import JointSet, with_all_joints
from ..joints.category_list import ids_by_text
from .boxes import is_numbers, refuse_other_forms
from .checks import check_annotations, check_images
from .chosen_categories import chosen_categories, own_categories
from .joints_in_boxes import refuse_other_units

_logger = logging.getLogger(__name__)

BOX_TO_AREA = 0.53
"""Area of a person over that of the box, where annotations carry no area (CrowdPose)."""
_HEAVY = {"segmentation"}  # not needed for keypoints, and most of a file


@dataclass(frozen=True)
class Annotations:
    """A COCO keypoint file in COCO's own form; made by `normalised`.

    Attributes:
        data: ``images``, ``annotations`` and ``categories`` with ids from 1; of each annotation ``iscrowd`` is 0 or 1,
            ``area`` above 0, ``keypoints`` three numbers a joint, and ``num_keypoints`` 0 for who does not count.
        joints: The joints in it.
        image_ids: The file's own id of image 1, 2, ...
        category_ids: The file's own id of category 1, 2, ...
        left_out: Why annotations do not count, and how many of the file's.
        total: The annotations in the file.
    """

    data: dict[str, Any]
    joints: JointSet
    image_ids: tuple[Any, ...]
    category_ids: tuple[Any, ...]
    left_out: dict[str, int]
    total: int

    def counted(self) -> list[dict[str, Any]]:
        """The entries of those who are trained on and measured: labelled, no crowd, with a box inside the picture."""
        return [entry for entry in self.data["annotations"] if entry["num_keypoints"] and not entry["iscrowd"]]

    def check_somebody(self) -> None:
        """Refuse a file in which nobody counts.

        Raises:
            PoseDataError: It says why each annotation was left out.
        """
        if not any(entry["num_keypoints"] and not entry["iscrowd"] for entry in self.data["annotations"]):
            raise PoseDataError(
                f"none of {self.total} annotations can be used: {self.left_out}; a COCO keypoint file with the "
                f"{len(self.joints)} joints of {self.joints.name} is expected"
            )

    def known_categories(self) -> dict[str, Any]:
        """The file's own ids of the categories, by what other files may call them: the id or the name, as text."""
        pairs = zip(self.data["categories"], self.category_ids, strict=True)
        return ids_by_text([{**category, "id": own} for category, own in pairs])


def normalised(annotations: Any, joints: JointSet, categories: Sequence[Any] | None = None) -> Annotations:
    """A private copy of a file's contents in COCO's own form; what is given is left as it is.

    A value ``null`` counts as left out. Without ``category_id``, an annotation is of the file's only category, or of 1.
    Who is a crowd, has no labelled joint, no box inside the picture, or is of another category does not count. Of
    these the first three stay in the copy, as places where COCO's evaluation neither rewards nor punishes.
    ``num_keypoints`` is counted anew, and an ``area`` that is missing or not above 0 is 0.53 of the box.

    Args:
        annotations: The contents of a COCO keypoint file, or what this function returned.
        joints: The joints looked for.
        categories: Ids or names of the categories whose annotations count; default: all that have these joints, by the
            names that the file lists for each, whatever their style (``Left Hip`` is ``hip_l``).

    Raises:
        PoseDataError: No COCO keypoint file; the entry and the key at fault are named. A category that is not there or
            has other joints. An id that is there twice. Boxes or joints that look like
            fractions or percents of the picture, boxes like two corners.
        ValueError: What is given was made for other joints.

    Example:
        >>> found = normalised(read_json("train.json"), COCO, ["person"])
        >>> len(found.counted()), found.left_out
        (36, {'no labelled joint': 42, 'a crowd': 4})
    """
    if isinstance(annotations, Annotations):
        if annotations.joints != joints:
            raise ValueError(f"annotations brought into form for {annotations.joints.name}, not for {joints.name}")
        return annotations
    images = check_images(annotations)
    check_annotations(annotations, images)
    annotations = with_all_joints(annotations, joints)
    listed = annotations.get("categories") or []
    of_each = own_categories(annotations["annotations"], listed)
    chosen = chosen_categories(of_each, listed, joints, categories)
    image_ids, category_ids = tuple(sorted(images)), tuple(chosen)
    image_numbers = {own: number for number, own in enumerate(image_ids, 1)}
    category_numbers = {own: number for number, own in enumerate(category_ids, 1)}
    left_out: Counter[str] = Counter()
    entries = []
    for number, (entry, own_category) in enumerate(zip(annotations["annotations"], of_each, strict=True), 1):
        category = category_numbers.get(own_category)
        if category is None:
            left_out["of another category"] += 1
            continue
        found = _entry(entry, images[entry["image_id"]], joints, left_out)
        if found is not None:
            own = {"id": number, "image_id": image_numbers[entry["image_id"]], "category_id": category}
            entries.append(found | own)
    copied = Annotations(
        data={
            "info": {},
            "images": [_picture(images[own], number) for own, number in image_numbers.items()],
            "annotations": entries,
            "categories": [{**chosen[own], "id": number} for own, number in category_numbers.items()],
        },
        joints=joints,
        image_ids=image_ids,
        category_ids=category_ids,
        left_out=dict(left_out),
        total=len(annotations["annotations"]),
    )
    boxes, sizes, points = _labelled(copied)
    refuse_other_forms(boxes, sizes, "bbox of annotations")
    some = slice(None, None, 1 + len(points) // 20_000)  # of a large file a part tells
    refuse_other_units(boxes[some], sizes[some], np.array(points[some], np.float64).reshape(-1, len(joints), 3))
    for reason, many in left_out.items():
        _logger.info("%d of %d annotations left out: %s", many, copied.total, reason)
    return copied


def inside(box: Sequence[float], picture: dict[str, Any]) -> tuple[float, float, float, float] | None:
    """The box cut at the picture's border, or ``None`` where nothing of it is left."""
    x, y, width, height = box
    across, down = size_of(picture) or (np.inf, np.inf)
    left, top = max(0.0, x), max(0.0, y)
    right = min(across - 1, left + max(0.0, width - 1))
    bottom = min(down - 1, top + max(0.0, height - 1))
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None


def size_of(picture: dict[str, Any]) -> tuple[int, int] | None:
    """Width and height of a picture, where the file says them; some tools write 0 for what they do not know."""
    width, height = picture.get("width") or 0, picture.get("height") or 0
    return (round(width), round(height)) if width > 0 and height > 0 else None


def _entry(
    entry: dict[str, Any], picture: dict[str, Any], joints: JointSet, left_out: Counter[str]
) -> dict[str, Any] | None:
    """One annotation without its ids, or ``None`` for one that says nothing at all: neither joints nor a box."""
    name, crowd = f"annotation {entry['id']}", int(entry.get("iscrowd") or 0)
    box: Any = entry.get("bbox")
    points = _points(entry, joints, name)
    labelled = int((points[:, 2] > 0).sum())
    if crowd or not labelled:
        left_out["a crowd" if crowd else "no labelled joint"] += 1
        labelled = 0
        if not is_numbers(box, 4):
            return None
    elif not is_numbers(box, 4):
        given = "no 'bbox'" if box is None else f"bbox {box!r:.80}"
        raise PoseDataError(f"{name} has {given}: four finite numbers are expected, x, y, width, height")
    elif inside(box, picture) is None:
        left_out["a box without size" if min(box[2:]) <= 0 else "no box inside the picture"] += 1
        labelled = 0
    area = entry.get("area") or 0
    if not joints.has_area or area <= 0:
        area = BOX_TO_AREA * max(0.0, box[2]) * max(0.0, box[3])
    flat = entry["keypoints"] if entry.get("keypoints") else [0] * (3 * len(joints))
    own = {"iscrowd": crowd, "bbox": list(box), "area": area, "keypoints": flat, "num_keypoints": labelled}
    return {key: value for key, value in entry.items() if key not in _HEAVY} | own


def _points(entry: dict[str, Any], joints: JointSet, name: str) -> NDArray[np.float32]:
    flat, expected = entry.get("keypoints") or [0] * (3 * len(joints)), 3 * len(joints)
    if len(flat) != expected:
        guess = "; are they x and y without the visibility?" if len(flat) == 2 * len(joints) else ""
        raise PoseDataError(
            f"{name} holds {len(flat)} keypoint numbers: {expected} are expected ({len(joints)} joints of "
            f"{joints.name}, each x, y, visibility){guess}"
        )
    with np.errstate(over="ignore"):  # a number that single precision does not hold is named below
        points = np.asarray(flat, dtype=np.float32).reshape(-1, 3)
    if not np.isfinite(points).all():
        raise PoseDataError(f"{name}: a keypoint number is beyond what single precision holds")
    return points


def _picture(picture: dict[str, Any], number: int) -> dict[str, Any]:
    return {key: value for key, value in picture.items() if value is not None} | {"id": number}


def _labelled(copied: Annotations) -> tuple[NDArray[np.float64], NDArray[np.float64], list[list[float]]]:
    """Boxes of labelled persons, the sizes of their pictures, nan where the file does not say, and their joints.

    Of all of them: boxes in another form may be why some do not count.
    """
    pictures, entries = copied.data["images"], copied.data["annotations"]
    found = [each for each in entries if not each["iscrowd"] and any(flag > 0 for flag in each["keypoints"][2::3])]
    sizes = [size_of(pictures[entry["image_id"] - 1]) or (np.nan, np.nan) for entry in found]
    boxes = np.array([entry["bbox"] for entry in found], dtype=np.float64).reshape(-1, 4)
    points = [entry["keypoints"] for entry in found]
    return boxes, np.array(sizes, dtype=np.float64).reshape(-1, 2), points
