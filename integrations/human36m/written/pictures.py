"""The pictures that keypoints were found in: of a video, or a folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cycledistill.recipes.reading.guard import PICTURE, reading
from cycledistill.recipes.reading.numbered import PICTURES, natural, picture_numbers
from cycledistill.recipes.reading.rates import is_same_rate
from cycledistill.recipes.reading.videos import VIDEO, open_video_file, rate_of

from ..data.keypoints.frame_order import step_of
from ..errors import LiftingDataError

_logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]


def read_pictures(path: str | Path, numbers: Sequence[int] | int, first: int = 0) -> Iterator[Pixels | None]:
    """The pictures of some numbers, RGB, one after the other.

    Args:
        path: A video, or a folder of pictures, whose names have their numbers; those of a folder without numbers count
            from ``first`` in the order of their names.
        numbers: Which, in ascending order; or how many from the first on, of keypoints without numbers.
        first: The number of a video's first picture, see `Keypoints`.

    Yields:
        (H, W, 3); ``None`` for a number that the folder does not have.

    Raises:
        LiftingDataError: It is not there, cannot be read, or a video ends before the last of them.
    """
    path = Path(path)
    if isinstance(numbers, int):
        yield from (_in_order(path, numbers) if path.is_dir() else _of_video(path, range(numbers), 0))
        return
    if any(one > other for one, other in pairwise(numbers)) or (len(numbers) and numbers[0] < 0):
        raise LiftingDataError("numbers of pictures: whole numbers from 0 in ascending order are expected")
    yield from (_of_folder(path, numbers, first) if path.is_dir() else _of_video(path, numbers, first))


def check_video_rate(
    path: str | Path,
    frame_rate: float | None,
    numbers: Sequence[int] | NDArray[np.int64] | None = None,
    *,
    insisted: bool = False,
) -> None:
    """Refuse a video of another frame rate than the keypoints: it shows other moments than they are of.

    Args:
        path: A video; of a folder, and of a video that does not say its rate, nothing is said.
        frame_rate: Of the keypoints; ``None``: not known.
        numbers: Of their pictures: if every second picture of a video was taken, its rate is twice theirs.
        insisted: Whether ``frame_rate`` is what the user says, as of slow motion: another is told only.

    Raises:
        LiftingDataError: It cannot be read, or is of another rate.
    """
    path = Path(path)
    if frame_rate is None or path.is_dir():
        return
    capture = open_video_file(path, LiftingDataError)
    rate = rate_of(capture)
    capture.release()
    step = 1 if numbers is None or len(numbers) < 2 else step_of(list(numbers))
    if rate is None or is_same_rate(rate, frame_rate * step):
        return
    every = "" if step == 1 else f", of every picture of {step}"
    told = f"{path} has {rate:g} frames a second, and the keypoints {frame_rate:g}{every}"
    if not insisted:
        raise LiftingDataError(
            f"{told}: is it the video that they were found in? If it is, say their rate: --frame-rate {rate / step:g}"
        )
    _logger.warning("%s; its pictures are shown one a frame all the same", told)


def _of_folder(path: Path, numbers: Sequence[int], first: int) -> Iterator[Pixels | None]:
    files = _files(path)
    counted = picture_numbers([file.name for file in files])
    if counted is not None and len(set(counted)) < len(files):
        raise LiftingDataError(f"{path}: two pictures have one number, as a.png and a.jpg do; one each is expected")
    if counted is None:
        _logger.info("%s: names do not number the pictures, which are taken in their order from %d on", path, first)
        counted = list(range(first, first + len(files)))
    elif counted[0] == 1 and len(numbers) and numbers[0] == 0:
        _logger.warning(
            "%s: its pictures count from 1, as ffmpeg's do, and the keypoints' from 0: picture 1 is taken for their 0",
            path,
        )
        counted = [number - 1 for number in counted]
    named = dict(zip(counted, files, strict=True))
    if not set(named) & set(numbers):
        raise LiftingDataError(
            f"{path} has {len(files)} pictures, and none has a number from {numbers[0]} to {numbers[-1]}, which the "
            "keypoints are of"
        )
    for number in numbers:
        yield _read(named[number]) if number in named else None


def _in_order(path: Path, count: int) -> Iterator[Pixels]:
    files = _files(path)
    if len(files) != count:
        raise LiftingDataError(
            f"{path} has {len(files)} pictures, and there are {count} frames of keypoints without numbers, which are "
            "paired by their order: one for each is expected"
        )
    _logger.info("%s: the keypoints have no numbers, and its pictures are taken in the order of their names", path)
    yield from map(_read, files)


def _files(path: Path) -> list[Path]:
    files = sorted((each for each in path.iterdir() if each.suffix.lower() in PICTURES), key=lambda f: natural(f.name))
    if not files:
        raise LiftingDataError(f"{path}: no picture is in this folder ({', '.join(sorted(PICTURES))})")
    return files


def _read(file: Path) -> Pixels:
    with reading(file, PICTURE, LiftingDataError):
        picture = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            raise ValueError("not decoded")
    return np.asarray(picture[..., ::-1], np.uint8)


def _of_video(path: Path, numbers: Sequence[int], first: int) -> Iterator[Pixels]:
    capture = open_video_file(path, LiftingDataError)
    place, picture = first - 1, np.empty(0, np.uint8)
    try:
        if len(numbers) and numbers[0] < first:
            raise LiftingDataError(
                f"the first picture of {path} is taken for number {first}, and the keypoints are of {numbers[0]} too: "
                "--first-picture says another"
            )
        for number in numbers:
            while place < number:
                with reading(path, VIDEO, LiftingDataError):
                    there, found = capture.read()
                if not there:
                    raise LiftingDataError(
                        f"{path} has {place + 1 - first} pictures, counted from {first}, and the keypoints are of "
                        f"picture {number} too: is it their video? If they count from another number, say which: "
                        "--first-picture"
                    )
                place, picture = place + 1, np.asarray(found[..., ::-1], np.uint8)
            yield picture
    finally:
        capture.release()


def check_length(path: Path, numbers: Sequence[int] | int, first: int = 0) -> None:
    """Refuse a video that ends before a frame; of a folder pictures may be missing.

    A file that says that it is long enough is believed; otherwise it is read up to there, as what files say is a guess.

    Raises:
        LiftingDataError: So it is.
    """
    if path.is_dir():
        return
    last = first + numbers - 1 if isinstance(numbers, int) else numbers[-1]
    capture = open_video_file(path, LiftingDataError)
    stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    capture.release()
    if stated <= last - first:
        next(read_pictures(path, [last], first))
