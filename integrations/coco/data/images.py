"""Pictures from a folder or from inside a zip file."""

from __future__ import annotations

import logging
import math
import os
import posixpath
import re
import stat
import threading
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from cycledistill.recipes.errors import DataError
from cycledistill.recipes.reading.guard import ARCHIVE, FILE, PICTURE, reading

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


class ImageStore:
    """Reads pictures by file name.

    Args:
        root: A folder, or a zip file with an optional folder inside it: ``"coco.zip/val2017"``. Where there is no
            folder ``val2017`` but a ``val2017.zip`` beside its place, that one serves, with or without a folder
            ``val2017`` inside, as COCO's own files have it.

        allow_outside: Read names that lead out of the root, by ``..`` or as absolute paths, too. Names come from
            annotation files, and whoever wrote one could have any file of this machine read. An absolute path below
            the root is always read.
        exif: Whether pictures are turned as their EXIF data says: ``"apply"``, ``"ignore"``, or ``"auto"``, where that
            agrees with the size in the annotation file. Where both agree, as in square pictures and half turns, or no
            size is known, a picture is turned, counted (in each process) and logged.

    Names are found in their other spellings too: ``./a.png``, with backslashes, with accents composed or not (as
    systems differ), and in zip files whose names do not say that they are UTF-8. Links are followed in a folder, where
    its owner put them; one inside a zip file is refused. Each process opens the zip for itself, so a store may be
    handed to the workers of a data loader.

    Raises:
        PoseDataError: There is neither a folder nor a zip file there.
    """

    def __init__(self, root: str | Path, *, allow_outside: bool = False, exif: Exif = "auto") -> None:
        self.root, self.allow_outside, self.exif = Path(root), allow_outside, exif
        self.undecided: set[str] = set()  # pictures that were turned although nothing told whether they should be
        self.archive, self.inside = _split(self.root)
        self._open: tuple[int, int, zipfile.ZipFile] | None = None

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

    def read_bytes(self, name: str) -> bytes:
        """The contents of a file.

        Raises:
            PoseDataError: The file is missing or cannot be read, or its name leads out of the root.
        """
        self.check_inside(name)
        with reading(self.root / name, ARCHIVE if self.archive else FILE, PoseDataError):
            below = os.path.relpath(name, self._whole_root()) if self._is_below(name) else name
            if self.archive is None or os.path.isabs(below):
                return _file(self.root, below).read_bytes()
            opened = self._zip()
            member = _member(opened, self.inside + below)
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
        absolute = os.path.isabs(name) or os.path.splitdrive(name)[0]
        if _goes_up(name) or (absolute and not self._is_below(name)):
            raise PoseDataError(
                f"{name!r:.200} is not inside {self.root}: pictures are read from there alone. If the names are yours, "
                "allow it (data.allow_outside=true in a recipe), or give the folder that holds them all"
            )

    def _whole_root(self) -> Path:
        return self.root.absolute()

    def _is_below(self, name: str) -> bool:
        """Whether a name is an absolute path below the root, by its letters, and does not go up from there."""
        return os.path.isabs(name) and not _goes_up(name) and Path(name).is_relative_to(self._whole_root())

    def _zip(self) -> zipfile.ZipFile:
        assert self.archive is not None
        here = (os.getpid(), threading.get_ident())
        if self._open is None or self._open[:2] != here:
            self._open = (*here, zipfile.ZipFile(self.archive))
        return self._open[2]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": None}


def _goes_up(name: str) -> bool:
    """Whether ``..`` is a part of a name: not of its normal form, a/../b is elsewhere where a is a link."""
    return os.pardir in re.split(r"[\\/]", name)


def _spellings(name: str) -> Iterator[str]:
    """A name as other systems write it."""
    for slashes in dict.fromkeys((name, name.replace("\\", "/"))):
        yield slashes
        yield unicodedata.normalize("NFC", slashes)
        yield unicodedata.normalize("NFD", slashes)  # macOS


def _file(root: Path, name: str) -> Path:
    """A file in whichever spelling it is there; in the given one, where it is not."""
    if (root / name).is_file():
        return root / name
    return next((file for file in (root / each for each in _spellings(name)) if file.is_file()), root / name)


def _member(opened: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """A member of a zip file in whichever spelling it is there."""
    for each in _spellings(name):
        plain = posixpath.normpath(each)
        unmarked = plain.encode("utf-8", "replace").decode("cp437")  # bytes of UTF-8 that are not marked as such
        for spelled in (plain, f"./{plain}", unmarked):
            if spelled in opened.NameToInfo:
                return opened.NameToInfo[spelled]
    return opened.getinfo(name)


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
            names = (name.removeprefix("./") for name in opened.namelist())
            return beside, folder if any(name.startswith(folder) for name in names) else ""
    raise PoseDataError(f"{root}: there is no folder and no zip file here; give the folder that holds the pictures")
