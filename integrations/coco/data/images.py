"""Pictures from a folder or from inside a zip file."""

from __future__ import annotations

import os
import threading
import zipfile
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from cycledistill.recipes.errors import DataError


class PoseDataError(DataError):
    """Annotations, detections or pictures that cannot be used; the message says which and why."""


class PictureSource(Protocol):
    """Whatever gives pictures by name."""

    def read(self, name: str) -> NDArray[np.uint8]:
        """The picture as an RGB array, (height, width, 3); ``PoseDataError`` where that is impossible."""


class ImageStore:
    """Reads pictures by file name.

    Args:
        root: A folder, or a zip file with an optional folder inside it: ``"coco.zip/val2017"``. Where there is no
            folder ``val2017`` but a ``val2017.zip`` beside its place, that one serves, with or without a folder
            ``val2017`` inside, as COCO's own files have it.

    Each process opens the zip for itself, so a store may be handed to the workers of a data loader.

    Raises:
        PoseDataError: There is neither a folder nor a zip file there.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.archive, self.inside = _split(self.root)
        self._open: tuple[int, int, zipfile.ZipFile] | None = None

    def read(self, name: str) -> NDArray[np.uint8]:
        """The picture as an RGB array, (height, width, 3), as stored: EXIF rotation is not applied.

        Raises:
            PoseDataError: The file is missing or is not a picture.
        """
        data = self.read_bytes(name)
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
        if image is None:
            raise PoseDataError(f"{self.root / name}: not a picture, or a broken one ({len(data)} bytes)")
        return image  # type: ignore[return-value]

    def read_bytes(self, name: str) -> bytes:
        """The contents of a file.

        Raises:
            PoseDataError: The file is missing or cannot be read.
        """
        try:
            if self.archive is None:
                return (self.root / name).read_bytes()
            return self._zip().read(self.inside + name)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise PoseDataError(f"{self.root / name}: cannot be read ({error})") from error

    def _zip(self) -> zipfile.ZipFile:
        assert self.archive is not None
        here = (os.getpid(), threading.get_ident())
        if self._open is None or self._open[:2] != here:
            self._open = (*here, zipfile.ZipFile(self.archive))
        return self._open[2]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": None}


def _split(root: Path) -> tuple[Path | None, str]:
    if root.is_dir():
        return None, ""
    for archive in (root, *root.parents):
        if archive.suffix == ".zip" and archive.is_file():
            inside = root.relative_to(archive).as_posix()
            return archive, "" if inside == "." else f"{inside}/"
    beside = root.with_name(f"{root.name}.zip") if root.name else root
    if beside.is_file():
        folder = f"{root.name}/"
        try:
            with zipfile.ZipFile(beside) as opened:
                return beside, folder if any(name.startswith(folder) for name in opened.namelist()) else ""
        except (OSError, zipfile.BadZipFile) as error:
            raise PoseDataError(f"{beside}: cannot be read as a zip file ({error})") from error
    raise PoseDataError(f"{root}: there is no folder and no zip file here; give the folder that holds the pictures")
