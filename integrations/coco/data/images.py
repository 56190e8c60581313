"""Pictures from a folder or from inside a zip file."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from cycledistill.recipes.errors import DataError
from cycledistill.recipes.reading.guard import PICTURE, reading
from cycledistill.recipes.reading.stored import StoredFiles

from .exif import Exif, orientation, turned

_logger = logging.getLogger(__name__)


class PoseDataError(DataError):
    """Annotations, detections or pictures that cannot be used; the message says which and why."""


class PictureSource(Protocol):
    """Whatever gives pictures by name."""

    def read(self, name: str, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """The picture as an RGB array, (height, width, 3); ``PoseDataError`` where that is impossible.

        ``size``: its width and height as the annotation file has them, where it has.
        """


class ImageStore(StoredFiles):
    """Reads pictures by file name; where from, and which names, see `StoredFiles`.

    Args:
        root: A folder, or a zip file with an optional folder inside it.
        allow_outside: Read names that lead out of the root too.
        exif: Whether pictures are turned as their EXIF data says: ``"apply"``, ``"ignore"``, or ``"auto"``, where that
            agrees with the size in the annotation file. Where both agree, as in square pictures and half turns, or no
            size is known, a picture is turned, counted (in each process) and logged.

    Raises:
        PoseDataError: There is neither a folder nor a zip file there.
    """

    error = PoseDataError

    def __init__(self, root: str | Path, *, allow_outside: bool = False, exif: Exif = "auto") -> None:
        super().__init__(root, allow_outside=allow_outside)
        self.exif = exif
        self.undecided: set[str] = set()  # pictures that were turned although nothing told whether they should be

    def read(self, name: str, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """The picture as an RGB array, (height, width, 3).

        Args:
            name: The file.
            size: Its width and height as the annotation file has them.

        Raises:
            PoseDataError: The file is missing or is not a picture; or, with ``exif="auto"``, has not this size.
        """
        data, file = self.read_bytes(name), self.root / name
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        image: Any = None
        with reading(file, PICTURE, PoseDataError):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
        if image is None:
            raise PoseDataError(f"{file}: {PICTURE.broken} ({len(data)} bytes)")
        noted = 1 if self.exif == "ignore" else orientation(data)
        if self.exif == "auto" and not self._is_turned(name, image.shape[1::-1], noted, size):
            noted = 1
        return turned(image, noted)

    def _is_turned(self, name: str, stored: tuple[int, int], noted: int, size: tuple[int, int] | None) -> bool:
        """Whether the annotations are of the picture as its EXIF data turns it, by its size."""
        shown = stored[::-1] if noted >= 5 else stored
        if size is not None and size not in (stored, shown):
            turns = f", {shown[0]} x {shown[1]} when turned by its EXIF data" if noted > 1 else ""
            raise PoseDataError(
                f"{self.root / name}: the picture has {stored[0]} x {stored[1]} pixels{turns}, and the annotation file "
                f"says {size[0]} x {size[1]}: boxes and joints are of another picture. If it was resized, annotate it "
                "anew or resize it back; if only the size in the file is wrong, data.exif=ignore or apply in a recipe "
                "(exif= in Python) does not look at it"
            )
        if noted > 1 and (size is None or stored == shown) and name not in self.undecided:
            self.undecided.add(name)
            number = len(self.undecided)
            if math.log10(number).is_integer():  # 1, 10, 100, ...
                _logger.warning(
                    "%s: EXIF data turns it, and its size does not tell whether the annotations are of the turned "
                    "picture: turned (%d so far; data.exif=ignore leaves them)", name, number,
                )  # fmt: skip
        return size is None or size == shown
