"""One person's keypoints over time, and the results of single pictures that these are put together from."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import LiftingDataError
from ..timing import check_rate


@dataclass(frozen=True)
class Keypoints:
    """One person's keypoints over time.

    Attributes:
        pixels: (T, J, 2), or (T, J, 3) with a confidence.
        width: Of the picture, where the file says it.
        height: The same.
        frame_rate: Frames a second, where the file says it.
        track: Which track of the file; ``None`` where it has none.
        frames: (T,), the numbers of the pictures; ``None`` where they have none.
        first: The number that the first picture of a video has among these; YOLO's labels count from 1.
        layout: ``"coco"``, ``"h36m"`` or ``"halpe26"``, where the file's form says it.
        shares: Whether ``pixels`` are shares of the picture instead, as YOLO writes them.
    """

    pixels: NDArray[np.float32]
    width: float | None = None
    height: float | None = None
    frame_rate: float | None = None
    track: str | None = None
    frames: NDArray[np.int64] | None = None
    first: int = 0
    layout: str | None = None
    shares: bool = False

    def in_pixels(self, width: float, height: float) -> NDArray[np.float32]:
        """``pixels`` of a picture of this size, whatever the file has."""
        if not self.shares:
            return self.pixels
        return (self.pixels * np.array([width, height, 1][: self.pixels.shape[2]])).astype(np.float32)


@dataclass(frozen=True)
class Results:
    """What a tool found in pictures, in the form of AlphaPose's and COCO's results.

    Attributes:
        entries: One a picture and person: ``image_id``, ``keypoints``, and ``track_id`` where it is known.
        facts: Fields of `Keypoints` that are the same for all persons.
    """

    entries: list[dict[str, Any]]
    facts: dict[str, Any]


def table(value: Any, path: Path) -> NDArray[np.float32]:
    """Keypoints of all frames as (T, J, 2 or 3); ``null``, a frame's or a number's, is a keypoint that was not found.

    Raises:
        LiftingDataError: No table of numbers.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind not in "fiub":
        raise LiftingDataError(f"{path}: the keypoints are an array of {value.dtype}, numbers are expected")
    listed = isinstance(value, list)
    if listed and None in value:
        blank: Any = next((_zeros(frame) for frame in value if frame is not None), [])
        value = [blank if frame is None else frame for frame in value]
    try:
        with np.errstate(over="ignore"):  # infinite, and refused as such
            found = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise LiftingDataError(
            f"{path}: the keypoints are no table of numbers, the same for every frame: {error}"
        ) from error
    if found.ndim == 2 and found.shape[1] and found.shape[1] % 3 == 0:
        found = found.reshape(len(found), -1, 3)  # COCO's x, y, confidence, x, ...
    if listed and found.ndim == 3:  # what was null is nan here
        found = np.where(np.isnan(found).any(axis=-1, keepdims=True), np.float32(0), found)
    return found


def _zeros(keypoints: Any) -> Any:
    return [_zeros(part) for part in keypoints] if isinstance(keypoints, list) else 0.0


def number(data: dict[str, Any], name: str, path: Path) -> float | None:
    """A number of a file, where it is there: a size above 0, a rate, or the whole number of the first frame.

    Raises:
        LiftingDataError: It is none.
    """
    value = data.get(name)
    if isinstance(value, np.ndarray):  # npz files have all as arrays
        value = value.tolist()
    if value is None:
        return None
    first = name == "first_frame"
    try:
        found = float(value)
        if not (found.is_integer() and abs(found) < 2**31 if first else isfinite(found) and found > 0):
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        kind = "a whole number" if first else "a number above 0"
        raise LiftingDataError(f"{path}: {name}={value!r:.80}, {kind} is expected") from error
    if name == "fps":
        try:
            check_rate(found)
        except LiftingDataError as error:
            raise LiftingDataError(f"{path}: fps: {error}") from None
    return found
