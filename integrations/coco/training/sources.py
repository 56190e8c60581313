"""A recipe's persons, pictures and annotations, with errors that name the key to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cycledistill.recipes.reading.texts import parse_json

from ..data.annotations import Person, annotated_persons, detected_persons
from ..data.coco_file.normalise import normalised
from ..data.images import ImageStore, PoseDataError
from ..evaluation.ground_truth import GroundTruth, load_ground_truth
from ..recipe import DataSection


@dataclass(frozen=True)
class Split:
    """Persons of one part of a data set, and where their pictures are."""

    persons: list[Person]
    images: ImageStore


@dataclass(frozen=True)
class Validation(Split):
    """Persons to evaluate on, and the annotations to evaluate against."""

    truth: GroundTruth


def open_training(data: DataSection, image_size: tuple[int, int]) -> Split:
    """The annotated persons of the training part.

    Raises:
        PoseDataError: Files that are missing or cannot be used; the message names the recipe's key.
    """
    annotations = read_part(data, "train_annotations")
    with _naming(data, "train_annotations"):
        persons = annotated_persons(annotations, data.joint_set, image_size, data.categories)
    images = _images(data, "train_images", persons)
    return Split(persons, images)


def open_validation(data: DataSection, image_size: tuple[int, int]) -> Validation:
    """The persons to evaluate on: detected, where the recipe names a file of detections, else annotated.

    Raises:
        PoseDataError: Files that are missing or cannot be used; the message names the recipe's key.
    """
    annotations = read_part(data, "val_annotations")
    found = None if data.detections is None else read_part(data, "detections")
    with _naming(data, "val_annotations"):
        listed = normalised(annotations, data.joint_set, data.categories)
        truth = load_ground_truth(listed, data.joint_set)
        if found is None:
            persons = annotated_persons(listed, data.joint_set, image_size)
    if found is not None:
        with _naming(data, "detections"):
            persons = detected_persons(found, listed, data.joint_set, image_size, data.detection_threshold)
    images = _images(data, "val_images", persons)
    return Validation(persons, images, truth)


def _look(images: ImageStore, persons: list[Person], skip: bool) -> None:
    """Notice a wrong folder before the training starts: the first picture must be fine, or with ``skip`` any."""
    missing: PoseDataError | None = None
    for name, size in dict.fromkeys((person.file_name, person.size) for person in persons):
        try:
            images.read(name, size)
            return
        except PoseDataError as error:
            missing = missing or error
            if not skip:
                break
    if missing:
        raise missing


def _images(data: DataSection, key: str, persons: list[Person]) -> ImageStore:
    """Where the pictures are; a name that leads out of there stops a run at once, whatever is said of broken ones."""
    try:
        images = ImageStore(_root(data) / getattr(data, key), allow_outside=data.allow_outside, exif=data.exif)
        for name in dict.fromkeys(person.file_name for person in persons):
            images.check_inside(name)
        _look(images, persons, data.broken_images == "skip")
        return images
    except PoseDataError as error:
        raise PoseDataError(f"data.{key}: {error}") from error


def read_part(data: DataSection, key: str) -> Any:
    """What the JSON file under a key of the recipe holds.

    Raises:
        PoseDataError: It cannot be read.
    """
    name, root = Path(getattr(data, key)), _root(data)
    places = [root / name]  # an absolute name stands for itself
    if key == "detections" and not name.is_absolute() and name.parent != Path():
        places.append(root / name.name)  # the published file comes without the folder that mmpose puts it in
    errors = []
    for place in places:
        try:
            text = ImageStore(place.parent).read_bytes(place.name)
        except PoseDataError as error:
            errors.append(error)
        else:
            return parse_json(text, f"data.{key}: {place}", PoseDataError)
    hint = "; data.detections=null evaluates in the annotated boxes" if key == "detections" else ""
    tried = " nor ".join(map(str, places))
    raise PoseDataError(f"data.{key}: {tried} cannot be read{hint} ({errors[0]})") from errors[0]


def _root(data: DataSection) -> Path:
    if data.root is None:
        raise PoseDataError("data.root is not set: give the folder or zip file of the data set by --data")
    root = Path(data.root)
    if not root.exists():
        raise PoseDataError(f"data.root: {root} does not exist: give the folder or zip file of the data set by --data")
    return root


@contextmanager
def _naming(data: DataSection, key: str) -> Iterator[None]:
    """Errors about a file's contents say which key names the file, and what is looked for in it."""
    try:
        yield
    except ValueError as error:
        joints = data.joints if isinstance(data.joints, str) else data.joint_set.name
        looked_for = f"data.joints={joints!r}"
        if data.categories is not None:
            looked_for += f", data.categories={data.categories!r}"
        if key == "detections" and data.detection_threshold:
            looked_for += f", data.detection_threshold={data.detection_threshold:g}"
        raise PoseDataError(f"data.{key} {getattr(data, key)}: {error} ({looked_for})") from error
