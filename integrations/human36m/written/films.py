"""Frames into a file that plays: a GIF, or an MPEG-4 video."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cycledistill.files import atomic_file
from cycledistill.versions import require

from ..errors import LiftingDataError

require("pillow", "opencv-python-headless")

import cv2  # noqa: E402

Pixels = NDArray[np.uint8]

SUFFIXES = (".gif", ".mp4")
_GIF_RATE = 25.0
"""Frames a second of a GIF, at most: browsers slow down those that are much faster."""


def every(path: str | Path, frame_rate: float) -> int:
    """Of how many frames one is shown: of a GIF as many as make it no faster than 25 a second; of a video each."""
    return math.ceil(frame_rate / _GIF_RATE - 1e-6) if Path(path).suffix.lower() == ".gif" else 1


def write_film(frames: Iterable[Pixels], path: str | Path, frame_rate: float, count: int) -> None:
    """Write frames of one size, RGB, as they come.

    Args:
        frames: Those that are shown, see :func:`every`.
        path: ``.gif`` or ``.mp4``.
        frame_rate: Of the clip, before some were left out for a GIF.
        count: Frames of the clip, the same.

    Raises:
        LiftingDataError: It cannot be written, or not by this OpenCV. A file that was there is as it was.
    """
    try:
        with atomic_file(path) as file:
            if Path(path).suffix.lower() == ".gif":
                _write_gif(iter(frames), file, _delays(count, every(path, frame_rate), frame_rate))
            else:
                _write_video(frames, file, frame_rate)
    except OSError as error:
        raise LiftingDataError(f"{path} cannot be written: {error}") from error


def _delays(count: int, step: int, frame_rate: float) -> list[int]:
    """Milliseconds that each frame is shown, in a GIF's hundredths of a second; together as long as the clip."""
    ends = np.round(100 * np.append(np.arange(0, count, step), count) / frame_rate).astype(int)
    return [max(2, int(delay)) * 10 for delay in np.diff(ends)]


def _write_gif(frames: Iterator[Pixels], file: Path, delays: list[int]) -> None:
    from PIL import Image

    def pictures() -> Iterator[Image.Image]:
        for frame in frames:
            yield Image.fromarray(frame).quantize(128, dither=Image.Dither.NONE)

    made = pictures()
    next(made).save(file, save_all=True, append_images=made, duration=delays, loop=0)


def _write_video(frames: Iterable[Pixels], file: Path, frame_rate: float) -> None:
    writer, count = None, 0
    try:
        for frame in frames:
            if writer is None:
                code = cv2.VideoWriter.fourcc(*"mp4v")
                writer = cv2.VideoWriter(str(file), code, frame_rate, (frame.shape[1], frame.shape[0]))
                if not writer.isOpened():
                    raise LiftingDataError(f"{file.suffix} cannot be written by this OpenCV: take a .gif instead")
            writer.write(np.ascontiguousarray(frame[..., ::-1]))
            count += 1
    finally:
        if writer is not None:
            writer.release()
    capture = cv2.VideoCapture(str(file))  # of a full disk OpenCV says nothing
    found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.release()
    if found < count:
        raise OSError(f"{found} of {count} frames are in it; is the disk full?")
