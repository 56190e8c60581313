"""Pictures as a user has them: files, arrays, PIL images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cycledistill.recipes.reading.guard import PICTURE, reading

from .images import ImageStore, PoseDataError

Picture = str | os.PathLike[str] | NDArray[np.uint8] | Image.Image
"""A file, an RGB array (H, W, 3) of bytes, or a PIL image. A rotation noted in a file's EXIF data is not applied."""


@dataclass(frozen=True)
class GivenPictures:
    """Pictures as a caller has them, by their number."""

    images: Sequence[Picture]

    def name(self, index: int) -> str:
        """What an error calls a picture."""
        image = self.images[index]
        return str(image) if isinstance(image, (str, os.PathLike)) else f"images[{index}]"

    def size(self, index: int) -> tuple[int, int]:
        """Width and height; of a file only the head is read."""
        image = self.images[index]
        if isinstance(image, (str, os.PathLike)):
            with reading(image, PICTURE, PoseDataError), Image.open(image) as opened:
                return opened.size
        height, width = self.read(str(index)).shape[:2]
        return width, height

    def read(self, name: str) -> NDArray[np.uint8]:
        """The picture whose number is ``name``."""
        image = self.images[int(name)]
        if isinstance(image, (str, os.PathLike)):
            if not os.path.isfile(image):
                raise PoseDataError(f"{image}: there is no such file")
            folder, file = os.path.split(os.fspath(image))
            return ImageStore(folder or ".").read(file)
        if isinstance(image, Image.Image):
            with reading(f"images[{name}]", PICTURE, PoseDataError):  # one that was opened has not been decoded yet
                return np.array(image.convert("RGB"))
        array = np.asarray(image)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
            raise PoseDataError(
                f"images[{name}] is an array {array.shape} of {array.dtype}: RGB bytes (height, width, 3), uint8, "
                "a file or a PIL image is expected"
            )
        return array
