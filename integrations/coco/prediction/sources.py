"""What poses are to be predicted in, read as pictures of persons are: see `cycledistill.recipes.prediction.sources`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cycledistill.recipes.prediction.sources import Source, find_source

from ..data.exif import Exif
from ..data.images import ImageStore


@dataclass(frozen=True)
class Turned:
    """Reads pictures by OpenCV; a `Decoder`.

    Attributes:
        exif: Whether they are turned as their EXIF data says; ``"auto"``: where that gives the size in ``sizes``.
        sizes: Name -> width and height, where they are known beforehand.
    """

    exif: Exif = "apply"
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __call__(self, root: Path) -> Callable[[str], NDArray[np.uint8]]:
        """What reads a picture by name."""
        store = ImageStore(root, exif=self.exif)
        return lambda name: store.read(name, self.sizes.get(name))


def open_source(
    source: str | os.PathLike[str], limit: int | None = None, exif: Literal["apply", "ignore"] = "apply"
) -> Source:
    """What a user means by a source. Of pictures nothing but names is read yet; a video or a camera is opened.

    Args:
        source: A picture; a folder, read at any depth; a zip file, or a folder in one (``photos.zip/holiday``); a glob
            (``"photos/**/*.jpg"``); a video; or the number of a camera. What exists as a file or folder is no camera.
        limit: Take at most so many frames.
        exif: Whether pictures are turned as their EXIF data says, as a viewer shows them, or left as they are stored.

    Returns:
        Pictures in the order of their names, numbers in them compared as numbers. Of a folder, zip file or glob the
        files that are named like pictures; hidden ones and what macOS adds to zip files are left out.

    Raises:
        DataError: There is no such thing, no picture in it, or a file that is named like neither; a video that
            cannot be read or has no frames; a camera that is not there.

    Example:
        >>> source = open_source("photos")
        >>> source.total
        4000
    """
    return find_source(source, Turned(exif), limit)
