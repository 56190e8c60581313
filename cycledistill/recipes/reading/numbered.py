"""Pictures of one recording by their names: which files are pictures (or videos), their order, and their numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

PICTURES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))
"""Suffixes of files that are taken for pictures."""
VIDEOS = frozenset((".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"))
"""Suffixes of files that are taken for videos."""


def natural(name: str) -> list[str | int]:
    """What names are sorted by so that ``10.jpg`` comes after ``2.jpg``."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"([0-9]+)", name))]


def picture_numbers(names: Sequence[str]) -> list[int] | None:
    """The numbers by which names count that are alike but for numbers; ``None`` where they do not.

    It is the number that no two names share; of several (a counter and a time) the densest, then the last.

    Args:
        names: Of pictures, with or without a suffix; one that comes twice is the same picture.

    Example:
        >>> picture_numbers(["front/cam2_000031.jpg", "front/cam2_000033.jpg"])
        [31, 33]
        >>> picture_numbers(["000031_cam2.jpg", "000033_cam2.jpg"])
        [31, 33]
    """
    parts = [natural(_bare(name)) for name in names]
    if not parts or len({(len(each), *each[::2]) for each in parts}) > 1:
        return None
    different = len(set(map(tuple, parts)))
    columns: list[tuple[int, ...]] = list(zip(*(each[1::2] for each in parts), strict=True))
    telling = [column for column in reversed(columns) if len(set(column)) == different]
    return list(min(telling, key=lambda column: max(column) - min(column))) if telling else None


def _bare(name: str) -> str:
    suffix = PurePath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in PICTURES else name
