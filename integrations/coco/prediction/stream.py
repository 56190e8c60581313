"""Poses of a source's persons, a few frames in memory at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from cycledistill.recipes.prediction.frames import Frame
from cycledistill.recipes.prediction.sources import PictureFiles, Source

from ..data.annotations import PIXEL_STD, box_to_crop
from ..data.detections import Detected
from ..data.joints import JointSet, joints_of
from ..evaluation.average_precision import pose_score
from ..evaluation.measure import DEFAULT, EvalSettings
from ..evaluation.oks import oks_nms
from ..predict import check_boxes, predict
from .boxes import Boxes, FileBoxes, ImageId, whole_picture
from .outside import Outside

HELD_BYTES = 2**28
"""Frames wait for a batch of persons while they are smaller than this together: 43 of 1920 x 1080 pixels."""


@dataclass(frozen=True)
class Predicted:
    """The persons of a frame.

    Attributes:
        frame: The picture.
        image_id: Its number, or its id in the file that the boxes came from.
        keypoints: (N, K, 3): x and y in pixels of the picture, and the joint's score.
        scores: (N,): the box's score times the mean of the joints' scores that count, as the evaluation has it.
        boxes: (N, 4): x, y, width, height.
        box_scores: (N,).
        categories: (N,) ids of their categories in the file that the boxes came from; ``None`` where there is no file.
        tracks: (N,): the number of each person through the frames; ``None`` where nobody was followed.
    """

    frame: Frame
    image_id: ImageId
    keypoints: NDArray[np.float32]
    scores: NDArray[np.float64]
    boxes: NDArray[np.float64]
    box_scores: NDArray[np.float64]
    tracks: NDArray[np.int64] | None = None
    categories: tuple[Any, ...] | None = None

    def __len__(self) -> int:
        """The number of persons."""
        return len(self.keypoints)


def predict_stream(
    model: nn.Module,
    source: Source,
    boxes: Boxes = whole_picture,
    *,
    joints: JointSet | None = None,
    exit: int = 1,
    settings: EvalSettings = DEFAULT,
) -> Iterator[Predicted]:
    """Poses of all persons of all frames, in order, while the source is read.

    At most ``settings.batch_size`` frames, and of large ones as many as `HELD_BYTES` hold, are in memory, and a few
    more that are read ahead: a source may be of any length.

    Args:
        model: A pose model, wrapped or not, on any device; left in eval mode, with the exit it had.
        source: Of `open_source`.
        boxes: Whose poses: of `read_boxes`, a `DetectedBoxes`, or a function of a `Frame`; default: one person, who
            fills the picture.
        joints: The joint set; default, the model's.
        exit: The cycle whose prediction is wanted.
        settings: Flip test, decoding, suppression of poses of the same person (``nms``), batch size, precision, and
            what happens to a picture that cannot be read (``broken``). Nothing is read by its ``workers``.

    Yields:
        One `Predicted` for each frame that can be read, nobody in it included.

    Raises:
        DataError: A frame that cannot be read, or boxes that are none (see `predict`). Of a file of boxes a few
            that are outside their picture are left out, which the log counts; of half of them it is refused.
        ValueError: See `predict`.

    Example:
        >>> for found in predict_stream(model, open_source("talk.mp4"), DetectedBoxes(load_detector())):
        ...     print(found.frame.name, found.keypoints.shape)
    """
    joints = joints or joints_of(model)
    settings = dataclasses.replace(settings, workers=0)
    outside = Outside(str(boxes.path)) if isinstance(boxes, FileBoxes) else None
    if isinstance(boxes, FileBoxes):
        boxes = boxes.of(source)
        source = boxes.sized(source) if isinstance(source, PictureFiles) else source
    waiting: list[tuple[Frame, Detected]] = []
    persons = size = 0
    for frame in source.frames(settings.broken):
        found = boxes(frame)
        if outside is not None:
            found = outside.without(found, frame.size, frame.name)
        checked = dataclasses.replace(found, boxes=check_boxes(found.boxes, frame.size, frame.name))
        full = persons + len(checked.boxes) > settings.batch_size or size + frame.pixels.nbytes > HELD_BYTES
        if waiting and (full or len(waiting) == settings.batch_size):
            if outside is not None:
                outside.check()
            yield from _answers(model, waiting, boxes, joints, exit, settings)
            persons = size = 0
        waiting.append((frame, checked))
        persons, size = persons + len(checked.boxes), size + frame.pixels.nbytes
        del frame  # it must not live on while others are read
    if outside is not None:
        outside.check(ended=True)
    yield from _answers(model, waiting, boxes, joints, exit, settings)


def _answers(
    model: nn.Module,
    waiting: list[tuple[Frame, Detected]],
    boxes: Boxes,
    joints: JointSet,
    exit: int,
    settings: EvalSettings,
) -> Iterator[Predicted]:
    """The poses of the frames that wait, which are let go of."""
    pictures, rectangles = [frame.pixels for frame, _ in waiting], [found.boxes for _, found in waiting]
    poses = predict(model, pictures, rectangles, joints=joints, exit=exit, settings=settings)
    del pictures
    waiting.reverse()
    for keypoints in poses:
        frame, found = waiting.pop()
        assert keypoints is not None  # the pixels are there
        image_id = boxes.image_id(frame) if isinstance(boxes, FileBoxes) else frame.number
        answer = _without_doubles(frame, image_id, keypoints, found, model, joints, settings)
        del frame
        yield answer
        del answer


def _without_doubles(
    frame: Frame,
    image_id: ImageId,
    keypoints: NDArray[np.float32],
    found: Detected,
    model: Any,
    joints: JointSet,
    settings: EvalSettings,
) -> Predicted:
    """Scored, and of poses of the same person only the best, as the evaluation does it."""
    pairs = zip(keypoints, found.scores, strict=True)
    scores = np.array([pose_score(pose[:, 2], score, settings.keypoint_threshold) for pose, score in pairs])
    kept = list(range(len(keypoints)))
    if settings.nms is not None and len(kept) > 1:
        sides = [box_to_crop(box, model.config.image_size)[1] * PIXEL_STD for box in found.boxes.tolist()]
        areas = np.prod(sides, axis=1)
        kept = oks_nms(keypoints[..., :2], scores, areas, joints.sigmas, settings.nms)
    best = found[kept]
    return Predicted(
        frame, image_id, keypoints[kept], scores[kept], best.boxes, best.scores, categories=best.categories
    )
