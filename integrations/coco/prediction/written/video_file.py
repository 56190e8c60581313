"""Frames into a video file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ...data.images import PoseDataError


class VideoFile:
    """Frames into an MPEG-4 file, opened at the first of them.

    Args:
        path: ``.mp4``. It is the caller's to rename: half of it is there while it is written.
        fps: Frames a second.

    Raises:
        PoseDataError: OpenCV cannot write such a file.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps = path, fps
        self._writer: Any = None
        self._count = 0

    def write(self, pixels: NDArray[np.uint8]) -> None:
        """Append a frame, RGB, of the first one's size; of an odd number of rows or columns the last is lost."""
        height, width = pixels.shape[:2]
        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self.path), code, self.fps, (width, height))
            if not self._writer.isOpened():
                raise PoseDataError(f"a video of {width} x {height} pixels cannot be written by this OpenCV")
        self._writer.write(np.ascontiguousarray(pixels[..., ::-1]))
        self._count += 1

    def close(self) -> None:
        """End the file."""
        if self._writer is not None:
            self._writer.release()

    def check(self) -> None:
        """Refuse a file that lacks frames: OpenCV does not say so, on a full disk for instance.

        Raises:
            OSError: It does.
        """
        capture = cv2.VideoCapture(str(self.path))
        found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if found < self._count:
            raise OSError(f"the drawn video is not written whole, {found} of {self._count} frames; is the disk full?")
