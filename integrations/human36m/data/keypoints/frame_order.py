"""In which order pictures with names or numbers are, which are missing between them, and of which track a result is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from cycledistill.recipes.reading.numbered import picture_numbers

from ...errors import LiftingDataError

_LARGEST = 10**18
TRACKS = ("track_id", "track", "person_id", "idx")
"""What trackers call the number of a person; the last is AlphaPose's."""


def track_of(entry: dict[str, Any]) -> str | None:
    """The track of one result as text; ``None`` where it has none."""
    for name in TRACKS:
        value = entry.get(name)
        while isinstance(value, list) and len(value) == 1:  # AlphaPose's PoseFlow
            value = value[0]
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, (int, str)) and not isinstance(value, bool):
            return str(value)
    return None


def step_of(numbers: list[int]) -> int:
    """The step in which numbers go."""
    first = min(numbers)
    return math.gcd(*(number - first for number in numbers)) or 1


def frame_numbers(names: list[Any]) -> list[int] | None:
    """The numbers that names count by, or are; ``None`` where they do not, see :func:`picture_numbers`."""
    return names if all(isinstance(name, int) for name in names) else picture_numbers([str(name) for name in names])


def check_counts(numbers: list[int], step: int, path: Path) -> None:
    """Refuse numbers that are no frames of a video: of fewer than half of those that they count there is a result.

    Raises:
        LiftingDataError: So it is.
    """
    first, last, there = min(numbers), max(numbers), len(set(numbers))
    if first <= -_LARGEST or last >= _LARGEST:
        raise LiftingDataError(f"{path}: an image_id of more than 18 digits is no number of a picture")
    count = (last - first) // step + 1
    if count > 2 * there:
        raise LiftingDataError(
            f"{path}: image_id counts from {first} to {last} in steps of {step}, and only {there} of these "
            f"{count} pictures have a result; ids are taken for the numbers of a video's frames. If they are none, or "
            "nobody was seen most of the time, write a table (frames, 17, 3) of keypoints, zeros where nobody was seen"
        )


def spread(found: list[Any], numbers: list[int], step: int) -> list[Any]:
    """Sorted entries at the places that their numbers count, ``None`` between."""
    placed: list[Any] = [None] * ((numbers[-1] - numbers[0]) // step + 1)
    for number, keypoints in zip(numbers, found, strict=True):
        placed[(number - numbers[0]) // step] = keypoints
    return placed
