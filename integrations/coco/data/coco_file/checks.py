"""What is no COCO keypoint file is refused here, entry by entry, before anything is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cycledistill.recipes.reading.plain import is_finite

from ..images import PoseDataError
from .boxes import is_numbers

AN_ID = "a whole number, or text,"


def is_id(value: object) -> bool:
    """Whether a value can be an id: text, or a whole number, also written as 1.0."""
    return isinstance(value, str) or (is_finite(value) and abs(value) < 2**63 and value == int(value))  # type: ignore


def check_images(annotations: Any) -> dict[Any, dict[str, Any]]:
    """The pictures of an annotation file by id.

    Raises:
        PoseDataError: It is no such file, lists no pictures, or an id is missing, odd, or there twice.
    """
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
            if not is_id(entry["id"]):
                raise PoseDataError(f"{name} of the annotation file has id {entry['id']!r:.80}: {AN_ID} is expected")
    categories: dict[Any, Any] = {}
    for category in annotations.get("categories", ()):
        other = categories.setdefault(category["id"], category)
        if other is not category:
            names = " and ".join(f"{each.get('name')!r:.80}" for each in (other, category))
            raise PoseDataError(f"category {category['id']} is there twice ({names}): ids of categories must differ")
        if not isinstance(category.get("keypoints") or [], list):
            raise PoseDataError(f"category {category['id']} has keypoints that are no list of names")
    images: dict[Any, dict[str, Any]] = {}
    for picture in annotations["images"]:
        name = f"image {picture['id']}"
        _check_numbers(picture, ("width", "height", "crowdIndex"), name)
        other = images.setdefault(picture["id"], picture)
        if other is not picture:
            files = " and ".join(f"{each.get('file_name')!r:.80}" for each in (other, picture))
            raise PoseDataError(f"{name} is there twice ({files}): ids of images must differ")
    if len({isinstance(own, str) for own in images}) > 1:
        raise PoseDataError("ids of images are numbers and text: one of the two is expected, for all")
    return images


def check_annotations(annotations: Any, images: dict[Any, dict[str, Any]]) -> None:
    """Refuse annotations with odd values.

    Raises:
        PoseDataError: The entry and the key at fault are named.
    """
    seen = set()
    for entry in annotations["annotations"]:
        missing = [key for key in ("id", "image_id") if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise PoseDataError(f"an annotation has no {missing[0]!r}: {str(entry)[:100]}")
        if not is_id(entry["id"]) or not is_id(entry["image_id"]):
            raise PoseDataError(
                f"an annotation has id {entry['id']!r:.80} and image_id {entry['image_id']!r:.80}: {AN_ID} is expected"
            )
        name = f"annotation {entry['id']}"
        if entry["id"] in seen:
            raise PoseDataError(f"{name} is there twice: ids of annotations must differ")
        seen.add(entry["id"])
        if entry["image_id"] not in images:
            raise PoseDataError(f"{name} is of image {entry['image_id']!r:.80}, which is not listed{_kinds(images)}")
        if not is_numbers(entry.get("keypoints") or []):
            raise PoseDataError(f"{name} has keypoints that are no plain list of finite numbers: x, y, visibility, ...")
        _check_numbers(entry, ("area", "num_keypoints"), name)
        category = entry.get("category_id")
        if category is not None and not is_id(category):
            raise PoseDataError(f"{name} has category_id {category!r:.80}: {AN_ID} is expected, or leave it out")
        if entry.get("iscrowd") not in (None, 0, 1):
            raise PoseDataError(f"{name} has iscrowd {entry['iscrowd']!r:.80}: 0 or 1 is expected, or leave it out")


def _kinds(images: dict[Any, dict[str, Any]]) -> str:
    return f" (ids there are like {next(iter(images))!r:.40})"


def _check_numbers(entry: dict[str, Any], names: Sequence[str], what: str) -> None:
    """Those of the fields that are there are finite numbers."""
    for name in names:
        if entry.get(name) is not None and not is_finite(entry[name]):
            raise PoseDataError(f"{what} has {name} {entry[name]!r:.80}: a finite number is expected, or leave it out")
