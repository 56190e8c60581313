"""Poses of persons in pictures that a user has: files, arrays or PIL images, with a box around each person."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn

from .data.annotations import Person, box_to_crop
from .data.coco_file.boxes import refuse_other_forms
from .data.exif import Exif
from .data.images import PoseDataError
from .data.joints import JointSet, joints_of
from .data.pictures import GivenPictures, Picture
from .evaluation.measure import DEFAULT, EvalSettings, Joints, predict_persons

_logger = logging.getLogger(__name__)


def predict(
    model: nn.Module,
    images: Sequence[Picture],
    boxes: Sequence[ArrayLike | None] | None = None,
    *,
    joints: JointSet | None = None,
    exit: int = 1,
    settings: EvalSettings = DEFAULT,
    progress: bool = False,
    exif: Exif = "apply",
) -> list[Joints | None]:
    """Joints of every person in every picture.

    Crop, flip test and decoding are those of the evaluation; persons of all pictures go through the model in common
    batches.

    Args:
        model: A pose model, wrapped or not, on any device; a prepared one too. Left in eval mode, with the exit it had.
        images: The pictures: files, RGB arrays (OpenCV's frames are BGR: give ``frame[..., ::-1]``) or PIL images.
        boxes: For each picture the boxes of its persons, (N, 4): x, y, width, height in pixels. N = 0: nobody.
            ``None``, for all or for one: one person, who fills the picture, which the log says. See ``detector.py`` and
            ``detections.py`` for where boxes come from.
        joints: The joint set; by default the model's own, see `joints_of`.
        exit: The cycle whose prediction is wanted. A plain model has exit 1 only.
        settings: Flip test, decoding, batch size, precision, and what happens to a picture that cannot be read:
            ``broken="stop"``, or ``"skip"``.
        progress: Say where it is: by a bar, or by lines in the log where there is no terminal.
        exif: Files and PIL images are turned as their EXIF data says, as a viewer shows them, and boxes and joints are
            in pixels of that; ``"ignore"``: of the picture as it is stored.

    Returns:
        For each picture (N, K, 3): x and y in pixels of the picture, and the score of the joint, in the order of its
        boxes; or ``None`` for a picture that cannot be read and is skipped (the log counts them).

    Raises:
        PoseDataError: A picture that cannot be read; boxes that are not (N, 4), not finite, without area, outside
            the picture, fractions of it or two corners; as many lists of boxes as there are not pictures.
        ValueError: A joint set of another size than the model's; an exit that the model does not have.

    Example:
        >>> poses = predict(model, ["street.jpg"], [[[34, 50, 120, 300], [210, 40, 110, 310]]])
        >>> poses[0].shape
        (2, 17, 3)
    """
    if isinstance(images, (str, bytes, os.PathLike)) or (boxes is not None and len(boxes) != len(images)):
        number = "one picture" if isinstance(images, (str, bytes, os.PathLike)) else f"{len(images)} pictures"
        lists = "no boxes" if boxes is None else f"{len(boxes)} lists of boxes"
        raise PoseDataError(f"{number} with {lists}: a list of pictures, and one list of boxes for each, is expected")
    config: Any = model.config
    joints = joints or joints_of(model)
    given = GivenPictures(images, exif)
    persons: list[Person] = []
    counts: list[int | None] = []
    given_boxes, sizes, alone = list[NDArray[np.float64]](), list[tuple[int, int]](), 0
    for index in range(len(images)):
        try:
            size = given.size(index)
        except PoseDataError as error:
            if settings.broken == "stop":
                raise
            _logger.warning("skipped: %s", error)
            counts.append(None)
            continue
        whole = boxes is None or boxes[index] is None
        checked = np.array([[0, 0, *size]]) if whole else check_boxes(boxes[index], size, given.name(index))  # type: ignore[index]
        persons += [_person(str(index), box, config.image_size, len(joints)) for box in checked]
        counts.append(len(checked))
        alone += whole
        if not whole:
            given_boxes.append(checked)
            sizes += [size] * len(checked)
    if given_boxes:
        refuse_other_forms(np.concatenate(given_boxes), np.array(sizes, np.float64).reshape(-1, 2), "boxes")
    if alone:
        _logger.warning(
            "%d of %d pictures have no boxes: each is taken for one person who fills it", alone, len(images)
        )
    found = predict_persons(model, persons, given, joints, exits=(exit,), settings=settings, progress=progress)[exit]
    return _by_picture(found, counts, len(joints))


def check_boxes(boxes: ArrayLike | None, size: tuple[int, int], name: str) -> NDArray[np.float64]:
    """The boxes of a picture as an array (N, 4): x, y, width, height.

    Args:
        boxes: What was given.
        size: Width and height of the picture.
        name: What an error calls it.

    Raises:
        PoseDataError: Not (N, 4), not finite, without area, or outside the picture.
    """
    try:
        array = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise PoseDataError(f"{name}: boxes that are no numbers, {boxes!r:.80}") from error
    if array.size == 0:
        return np.empty((0, 4))
    if array.ndim != 2 or array.shape[1] != 4:
        raise PoseDataError(f"{name}: boxes of shape {array.shape}; (N, 4) is expected: x, y, width, height in pixels")
    for number, (x, y, width, height) in enumerate(array):
        shown = f"{name}: box {number}, x={x:g} y={y:g} width={width:g} height={height:g},"
        if not np.isfinite(array[number]).all():
            raise PoseDataError(f"{shown} is not finite")
        if width <= 0 or height <= 0:
            raise PoseDataError(f"{shown} has no area; x, y, width, height is expected, not two corners")
        if x >= size[0] or y >= size[1] or x + width <= 0 or y + height <= 0:
            raise PoseDataError(f"{shown} is outside the picture of {size[0]} x {size[1]} pixels")
    return array


def _person(name: str, box: NDArray[np.float64], image_size: tuple[int, int], joints: int) -> Person:
    center, scale = box_to_crop(box.tolist(), image_size)
    place = np.zeros((joints, 2), np.float32)
    return Person(int(name), name, center, scale, place, np.ones(joints, np.float32), 1.0)


def _by_picture(found: dict[int, Joints], counts: Sequence[int | None], joints: int) -> list[Joints | None]:
    result: list[Joints | None] = []
    first = 0
    for count in counts:
        if count is None:
            result.append(None)
            continue
        rows = range(first, first + count)
        first += count
        if any(row not in found for row in rows):  # its head could be read, its pixels not
            result.append(None)
        else:
            result.append(np.stack([found[row] for row in rows]) if count else np.empty((0, joints, 3), np.float32))
    skipped = sum(each is None for each in result)
    if skipped:
        _logger.warning("%d of %d pictures could not be read and were skipped", skipped, len(result))
    return result
