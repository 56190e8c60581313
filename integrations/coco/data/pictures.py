"""Pictures as a user has them: files, arrays, PIL images."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cycledistill.recipes.reading.guard import PICTURE, reading
from cycledistill.recipes.reading.pixels import check_bytes, to_rgb

from .annotations import box_to_crop
from .augment import crop_matrix
from .exif import Exif, orientation
from .images import ImageStore, PoseDataError

Picture = str | os.PathLike[str] | NDArray[np.uint8] | Image.Image
"""A file, an RGB array (H, W, 3) of bytes (OpenCV's frames are BGR: give ``frame[..., ::-1]``), or a PIL image."""


@dataclass(frozen=True)
class GivenPictures:
    """Pictures as a caller has them, by their number.

    Attributes:
        images: The pictures.
        exif: Whether files and PIL images are turned as their EXIF data says, as a viewer shows them; ``"ignore"``
            leaves them as they are stored.
    """

    images: Sequence[Picture]
    exif: Exif = "apply"

    def name(self, index: int) -> str:
        """What an error calls a picture."""
        image = self.images[index]
        return str(image) if isinstance(image, (str, os.PathLike)) else f"images[{index}]"

    def size(self, index: int) -> tuple[int, int]:
        """Width and height as `read` gives them; a file is not decoded for it."""
        image = self.images[index]
        if isinstance(image, (str, os.PathLike)):
            with reading(image, PICTURE, PoseDataError):
                data = Path(image).read_bytes()
                with Image.open(io.BytesIO(data)) as opened:
                    stored = opened.size
            return stored[::-1] if self.exif != "ignore" and orientation(data) >= 5 else stored
        height, width = self.read(str(index)).shape[:2]
        return width, height

    def read(self, name: str, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """The picture whose number is ``name``; of ``size`` nothing is expected."""
        image = self.images[int(name)]
        if isinstance(image, (str, os.PathLike)):
            if not os.path.isfile(image):
                raise PoseDataError(f"{image}: there is no such file")
            folder, file = os.path.split(os.fspath(image))
            return ImageStore(folder or ".", exif="ignore" if self.exif == "ignore" else "apply").read(file)
        if isinstance(image, Image.Image):
            with reading(f"images[{name}]", PICTURE, PoseDataError):  # one that was opened has not been decoded yet
                shown = image if self.exif == "ignore" else ImageOps.exif_transpose(image)
                return np.array(to_rgb(shown, image.format))
        return check_bytes(image, f"images[{name}]", PoseDataError)


def crop_whole(file: str | os.PathLike[str], image_size: tuple[int, int]) -> torch.Tensor:
    """A picture of one person who fills it, cut out as persons are who have a box.

    Args:
        file: The picture.
        image_size: Height and width of a crop.

    Returns:
        (H, W, 3), uint8, RGB; `prepare_images` makes it a model's input.

    Raises:
        PoseDataError: It cannot be read.
    """
    pixels = GivenPictures([file]).read("0")
    height, width = pixels.shape[:2]
    matrix = crop_matrix(*box_to_crop([0, 0, width, height], image_size), 0.0, image_size)
    return torch.from_numpy(cv2.warpAffine(pixels, matrix, image_size[::-1], flags=cv2.INTER_LINEAR))
