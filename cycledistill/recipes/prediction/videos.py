"""Videos and cameras, a frame after the other."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2

from cycledistill.recipes.errors import DataError
from cycledistill.recipes.prediction.frames import Frame
from cycledistill.recipes.reading.guard import reading
from cycledistill.recipes.reading.videos import VIDEO, open_video_file, rate_of

_logger = logging.getLogger(__name__)

USUAL_FPS = 30.0
"""Frames a second where a source does not say."""


@dataclass(frozen=True)
class Video:
    """A video file, turned as it says of itself; of `open_video`.

    ``total`` is what the file says of itself, an estimate.
    """

    path: Path
    fps: float
    total: int | None
    limit: int | None = None
    folders: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """The file."""
        return str(self.path)

    @property
    def files(self) -> Sequence[Path]:
        """The file."""
        return [self.path]

    def frames(self, broken: Literal["stop", "skip"] = "stop") -> Iterator[Frame]:
        """See `Source`; a video that breaks off has ended, and the log says where."""
        count = 0
        for frame in _frames(open_video_file(self.path, DataError), self.name, self.limit):
            yield frame
            count += 1
        if self.total is not None and count < self.total:
            _logger.warning("%s ends after %d frames, and says that it has about %d", self.path, count, self.total)


def open_video(path: Path, limit: int | None = None) -> Video:
    """A video, whose first frame is tried.

    Args:
        path: The file.
        limit: Take its first frames alone.

    Raises:
        DataError: It cannot be read, or has no frames.
    """
    capture = open_video_file(path, DataError)
    rate, count = rate_of(capture), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    if next(_frames(capture, str(path), 1), None) is None:
        raise DataError(f"{path}: {VIDEO.broken}: no frame of it can be decoded")
    known = [number for number in (count, limit) if number is not None and number > 0]
    if rate is None:
        _logger.warning("%s does not say how many frames it has a second: taken for %g", path, USUAL_FPS)
    return Video(path, rate or USUAL_FPS, min(known, default=None), limit)


@dataclass
class Camera:
    """A camera by its number, of `open_camera`; it ends after ``limit`` frames, or when ``stopped`` is set."""

    number: int
    fps: float
    capture: cv2.VideoCapture
    limit: int | None = None
    stopped: bool = False
    files: Sequence[Path] = ()
    folders: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"camera {self.number}"

    @property
    def total(self) -> int | None:
        """The limit."""
        return self.limit

    def frames(self, broken: Literal["stop", "skip"] = "stop") -> Iterator[Frame]:
        """See `Source`, once; a camera that gives no more frames is an error."""
        count = 0
        for frame in _frames(self.capture, self.name, self.limit):
            yield frame
            count += 1
            if self.stopped:
                return
        if count != self.limit:
            raise DataError(f"{self.name} gave {count} frames and no more: is it in use elsewhere, or unplugged?")


def open_camera(number: int, limit: int | None = None) -> Camera:
    """A camera, turned on.

    Args:
        number: Cameras are numbered from 0.
        limit: End after so many frames; default: when ``stopped`` is set.

    Raises:
        DataError: It is not there.
    """
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise DataError(
            f"camera {number} is not there, or another program has it; cameras are numbered from 0. If a file was "
            f"meant, there is none named {str(number)!r} here"
        )
    return Camera(number, rate_of(capture) or USUAL_FPS, capture, limit)


def _frames(capture: cv2.VideoCapture, name: str, limit: int | None) -> Iterator[Frame]:
    size: tuple[int, int] | None = None
    number = 0
    try:
        while limit is None or number < limit:
            with reading(name, VIDEO, DataError):
                there, picture = capture.read()
            if not there:
                return
            frame = Frame(f"{number:06d}", number, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))  # type: ignore[arg-type]
            if frame.size != (size or frame.size):
                raise DataError(
                    f"{name}: frame {number} is {frame.size[0]} x {frame.size[1]} pixels, those before it "
                    f"{size and size[0]} x {size and size[1]}: frames of one size are expected. Cut it there, or scale "
                    "it: ffmpeg -i VIDEO -vf scale=WIDTH:HEIGHT new.mp4"
                )
            size = frame.size
            number += 1
            yield frame
            del frame, picture  # they must not live on while the next one is read
    finally:
        capture.release()
