"""The pictures that keypoints were found in: of a video, or a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cycledistill.recipes.reading.guard import PICTURE, Kind, reading

from ..data.keypoints.frame_order import frame_numbers, natural
from ..errors import LiftingDataError

Pixels = NDArray[np.uint8]

_VIDEO = Kind("cannot be read as a video")
_PICTURES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def read_pictures(path: str | Path, numbers: Sequence[int]) -> Iterator[Pixels | None]:
    """The pictures of some numbers, RGB, one after the other.

    Args:
        path: A video, whose frames count from 0, or a folder of pictures, whose names have their numbers; without
            numbers, or where they fit none of those asked for, they count from 0 in the order of their names.
        numbers: Which, in ascending order.

    Yields:
        (H, W, 3); ``None`` for a number that the folder does not have.

    Raises:
        LiftingDataError: It is not there, cannot be read, or a video ends before the last of them.
    """
    path = Path(path)
    if any(one > other for one, other in pairwise(numbers)) or (len(numbers) and numbers[0] < 0):
        raise LiftingDataError("numbers of pictures: whole numbers from 0 in ascending order are expected")
    yield from (_of_folder(path, numbers) if path.is_dir() else _of_video(path, numbers))


def _of_folder(path: Path, numbers: Sequence[int]) -> Iterator[Pixels | None]:
    files = sorted((file for file in path.iterdir() if file.suffix.lower() in _PICTURES), key=lambda f: natural(f.name))
    if not files:
        raise LiftingDataError(f"{path}: no picture is in this folder ({', '.join(sorted(_PICTURES))})")
    counted = frame_numbers([file.name for file in files])
    named = dict(zip(counted or range(len(files)), files, strict=True))
    if not set(named) & set(numbers):
        named = dict(enumerate(files))
    if not set(named) & set(numbers):
        raise LiftingDataError(
            f"{path} has {len(files)} pictures, and none has a number from {numbers[0]} to {numbers[-1]}, which the "
            "keypoints are of"
        )
    for number in numbers:
        yield _read(named[number]) if number in named else None


def _read(file: Path) -> Pixels:
    with reading(file, PICTURE, LiftingDataError):
        picture = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            raise ValueError("not decoded")
    return np.asarray(picture[..., ::-1], np.uint8)


def _of_video(path: Path, numbers: Sequence[int]) -> Iterator[Pixels]:
    if not path.is_file():
        raise LiftingDataError(f"{path}: there is no such video or folder of pictures")
    with reading(path, _VIDEO, LiftingDataError):
        capture = cv2.VideoCapture(str(path))
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    if not capture.isOpened():
        raise LiftingDataError(f"{path}: {_VIDEO.broken}: it is broken, or in a format that this OpenCV does not know")
    place, picture = -1, np.empty(0, np.uint8)
    try:
        for number in numbers:
            while place < number:
                with reading(path, _VIDEO, LiftingDataError):
                    there, found = capture.read()
                if not there:
                    raise LiftingDataError(
                        f"{path} has {place + 1} pictures, counted from 0, and the keypoints are of picture {number} "
                        "too: is it their video, and do its numbers count from 0?"
                    )
                place, picture = place + 1, np.asarray(found[..., ::-1], np.uint8)
            yield picture
    finally:
        capture.release()


def check_length(path: Path, last: int) -> None:
    """Refuse a video that ends before a frame; of a folder pictures may be missing.

    A file that says that it is long enough is believed; otherwise it is read up to there, as what files say is a guess.

    Raises:
        LiftingDataError: So it is.
    """
    if path.is_dir():
        return
    capture = cv2.VideoCapture(str(path))
    stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    capture.release()
    if stated <= last:
        next(read_pictures(path, [last]))
