"""Predictions drawn on their pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cycledistill.files import atomic_file

from ...data.joints import JointSet
from ...draw import draw_poses, write_picture
from ..stream import Predicted
from .tables import Add
from .video_file import VideoFile


@contextmanager
def drawn_pictures(folder: Path, joints: JointSet, threshold: float) -> Iterator[Add]:
    """Each picture under its own name, in its own format, there as soon as it is done."""
    yield lambda found: write_picture(drawn(found, joints, threshold), folder / found.frame.name)


@contextmanager
def drawn_video(path: Path, joints: JointSet, threshold: float, fps: float) -> Iterator[Add]:
    """All frames as an MPEG-4 video, there when it is whole."""
    with atomic_file(path) as file:
        video = VideoFile(file, fps)
        try:
            yield lambda found: video.write(drawn(found, joints, threshold))
        finally:
            video.close()
        video.check()


def drawn(found: Predicted, joints: JointSet, threshold: float) -> NDArray[np.uint8]:
    """The frame with its persons' skeletons, and their numbers where they were followed."""
    picture = draw_poses(found.frame.pixels, found.keypoints, joints, threshold=threshold)
    if found.tracks is not None:
        zoom = max(0.5, min(picture.shape[:2]) / 700)
        for (left, top, *_), number in zip(found.boxes, found.tracks, strict=True):
            place = (max(int(left), 0) + 2, max(int(top), 0) + round(24 * zoom))
            for colour, thick in (((0, 0, 0), 4), ((255, 255, 255), 1)):
                thick = max(1, round(thick * zoom))
                cv2.putText(picture, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, zoom, colour, thick, cv2.LINE_AA)
    return picture
