"""Pictures from a folder or from inside a zip file."""

from __future__ import annotations

import os
import stat
import threading
import zipfile
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from cycledistill.recipes.errors import DataError
from cycledistill.recipes.reading.guard import ARCHIVE, FILE, PICTURE, reading


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

        allow_outside: Read names that lead out of the root, by ``..`` or as absolute paths, too. Names come from
            annotation files, and whoever wrote one could have any file of this machine read.

    Links are followed in a folder, where its owner put them; one inside a zip file is refused. Each process opens the
    zip for itself, so a store may be handed to the workers of a data loader.

    Raises:
        PoseDataError: There is neither a folder nor a zip file there.
    """

    def __init__(self, root: str | Path, *, allow_outside: bool = False) -> None:
        self.root, self.allow_outside = Path(root), allow_outside
        self.archive, self.inside = _split(self.root)
        self._open: tuple[int, int, zipfile.ZipFile] | None = None

    def read(self, name: str) -> NDArray[np.uint8]:
        """The picture as an RGB array, (height, width, 3), as stored: EXIF rotation is not applied.

        Raises:
            PoseDataError: The file is missing or is not a picture.
        """
        data, file = self.read_bytes(name), self.root / name
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        image = None
        with reading(file, PICTURE, PoseDataError):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
        if image is None:
            raise PoseDataError(f"{file}: {PICTURE.broken} ({len(data)} bytes)")
        return image  # type: ignore[return-value]

    def read_bytes(self, name: str) -> bytes:
        """The contents of a file.

        Raises:
            PoseDataError: The file is missing or cannot be read, or its name leads out of the root.
        """
        self.check_inside(name)
        with reading(self.root / name, ARCHIVE if self.archive else FILE, PoseDataError):
            if self.archive is None:
                return (self.root / name).read_bytes()
            opened = self._zip()
            member = opened.getinfo(self.inside + name)
            if not stat.S_ISLNK(member.external_attr >> 16):
                return opened.read(member)
        raise PoseDataError(f"{self.root / name}: a link inside a zip file is not followed; put the file itself there")

    def check_inside(self, name: str) -> None:
        """Refuse a name that leads out of the root.

        Raises:
            PoseDataError: It does, and ``allow_outside`` is not set.
        """
        if self.allow_outside:
            return
        parts = name.replace(os.sep, "/").split("/")  # not its normal form: a/../b is elsewhere where a is a link
        if os.path.isabs(name) or os.path.splitdrive(name)[0] or os.pardir in parts:
            raise PoseDataError(
                f"{name!r:.200} is not inside {self.root}: pictures are read from there alone. If the names are yours, "
                "allow it (data.allow_outside=true in a recipe), or give the folder that holds them all"
            )

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
        with reading(beside, ARCHIVE, PoseDataError), zipfile.ZipFile(beside) as opened:
            return beside, folder if any(name.startswith(folder) for name in opened.namelist()) else ""
    raise PoseDataError(f"{root}: there is no folder and no zip file here; give the folder that holds the pictures")
