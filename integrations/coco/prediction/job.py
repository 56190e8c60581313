"""The whole way from a source to a folder of predictions; what ``cycledistill predict`` does."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from cycledistill.recipes.prediction.output import check_output
from cycledistill.recipes.prediction.sources import PictureFiles, Source
from cycledistill.recipes.prediction.stopping import interruptible
from cycledistill.recipes.progress import with_progress

from ..data.joints import JointSet, joints_of
from ..evaluation.measure import DEFAULT, EvalSettings
from .boxes import Boxes, FileBoxes, whole_picture
from .stream import Predicted, predict_stream
from .tracking import track
from .written.folder import KINDS, open_outputs

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """What a run did: frames read, persons in them, frames with nobody, and seconds."""

    frames: int
    persons: int
    empty: int
    seconds: float

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.frames / self.seconds if self.seconds else 0.0


def predict_source(
    model: nn.Module,
    source: Source,
    output: str | Path,
    boxes: Boxes = whole_picture,
    *,
    joints: JointSet | None = None,
    exit: int = 1,
    settings: EvalSettings = DEFAULT,
    kinds: Sequence[str] = KINDS,
    tracked: bool = False,
    progress: bool = False,
) -> Summary:
    """Predict on all of a source and write a folder of predictions; see `predict_stream` and `open_outputs`.

    Args:
        model: A pose model, wrapped or not, on any device.
        source: Of `open_source`.
        output: A new or empty folder.
        boxes: Whose poses, as for `predict_stream`.
        joints: The joint set; default, the model's.
        exit: The cycle whose prediction is wanted.
        settings: As for `predict_stream`.
        kinds: What to write, some of `KINDS`.
        tracked: Follow persons from frame to frame (`track`).
        progress: Say where it is: by a bar, or by lines in the log where there is no terminal.

    Raises:
        DataError: See the functions named.
        OSError: A file cannot be written.

    Example:
        >>> model, settings = open_model("runs/a")
        >>> predict_source(model, open_source("photos"), "found", read_boxes("boxes.json"), settings=settings).rate
        31.4
    """
    joints = joints or joints_of(model)
    check_output(Path(output), source)
    if boxes is whole_picture:
        _logger.warning(
            "no boxes: each picture is taken for one person who fills it, however many are in it; give a file of boxes "
            "or a detector where that is wrong"
        )
    if isinstance(boxes, FileBoxes) and isinstance(source, PictureFiles):
        boxes.check(source)
    frames = persons = empty = 0
    start = time.perf_counter()
    stream: Iterable[Predicted] = predict_stream(model, source, boxes, joints=joints, exit=exit, settings=settings)
    if tracked:
        stream = track(stream, joints)
    with (
        interruptible(source),
        open_outputs(
            output, source, joints, kinds=kinds, tracked=tracked, threshold=settings.keypoint_threshold
        ) as add,
    ):
        for found in with_progress(stream, "predict", "pictures", source.total, shown=progress, leave=True):
            add(found)
            frames, persons, empty = frames + 1, persons + len(found), empty + (len(found) == 0)
    if frames and isinstance(boxes, FileBoxes) and empty == frames:
        _logger.warning(
            "no frame has a box in %s, which calls its own %r and the like", boxes.path, next(iter(boxes.found))
        )
    return Summary(frames, persons, empty, time.perf_counter() - start)
