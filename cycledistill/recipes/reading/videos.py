"""Videos, opened by OpenCV."""

from __future__ import annotations

import math
from pathlib import Path

from cycledistill.recipes.errors import DataError
from cycledistill.recipes.reading.guard import Kind, reading
from cycledistill.versions import require

require("opencv-python-headless")

import cv2  # noqa: E402

VIDEO = Kind("cannot be read as a video")


def open_video_file(path: Path, error: type[DataError]) -> cv2.VideoCapture:
    """A video, turned as it says of itself.

    Raises:
        DataError: Of the type that is given: there is no such file, or OpenCV does not read it.
    """
    if not path.is_file():
        raise error(f"{path}: there is no such file")
    with reading(path, VIDEO, error):
        capture = cv2.VideoCapture(str(path))
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    if not capture.isOpened():
        raise error(
            f"{path}: {VIDEO.broken}: it is broken, or in a format that this OpenCV does not know. Make one of it that "
            "it does: ffmpeg -i VIDEO new.mp4"
        )
    return capture


def rate_of(capture: cv2.VideoCapture) -> float | None:
    """Frames a second; ``None`` where a video or camera says nothing that can be."""
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    return rate if math.isfinite(rate) and 0 < rate < 1000 else None
