"""What classes are to be predicted of, read as pictures of data sets are: see `cycledistill.recipes.prediction`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cycledistill.recipes.errors import DataError
from cycledistill.recipes.prediction.ahead import in_order
from cycledistill.recipes.prediction.frames import Frame
from cycledistill.recipes.prediction.several import find_sources
from cycledistill.recipes.prediction.sources import Source, readable
from cycledistill.recipes.reading.guard import PICTURE, reading
from cycledistill.recipes.reading.pixels import check_bytes

from ..data.prepare import Pillow

Picture = str | os.PathLike[str] | NDArray[np.uint8] | Image.Image
"""A file, an RGB array (H, W, 3) of bytes, or a PIL image."""


def open_source(*sources: str, limit: int | None = None, exif: Literal["apply", "ignore"] = "ignore") -> Source:
    """What a user means by one or more sources. Of pictures nothing but names is read yet.

    Args:
        *sources: Each a picture; a folder, read at any depth; a zip file, or a folder in one; a glob; a video; or the
            number of a camera (alone). Videos and cameras need OpenCV.
        limit: Take at most so many frames.
        exif: Whether pictures are turned as their EXIF data says, as a viewer shows them; by default they are taken as
            they are stored, as in training and evaluation.

    Raises:
        DataError: There is no such thing, or no picture in it.

    Example:
        >>> open_source("photos", "cat.jpg").total
        4001
    """
    return find_sources(sources, Pillow(exif), limit)


@dataclass(frozen=True)
class Given:
    """Pictures that are given in a list; a `Source`."""

    images: Sequence[Picture]
    decoder: Pillow
    name: str = "images"
    fps: None = None
    files: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()

    @property
    def total(self) -> int:
        """How many there are."""
        return len(self.images)

    def frames(self, broken: Literal["stop", "skip"] = "stop") -> Iterator[Frame]:
        """See `Source`."""
        return readable(in_order(self._frame, enumerate(self.images)), broken, self.name)

    def _frame(self, place: tuple[int, Picture]) -> Frame | DataError:
        number, image = place
        try:
            if isinstance(image, (str, os.PathLike)):
                folder, file = os.path.split(os.fspath(image))
                return Frame(os.fspath(image), number, self.decoder(Path(folder or "."))(file))
            name = f"images[{number}]"
            if isinstance(image, Image.Image):
                with reading(name, PICTURE, DataError):  # one that was opened has not been decoded yet
                    return Frame(name, number, self.decoder.pixels(image))
            return Frame(name, number, check_bytes(image, name, DataError))
        except DataError as error:
            return error
