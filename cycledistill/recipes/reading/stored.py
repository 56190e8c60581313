"""Files by their names, from a folder or from inside a zip file."""

from __future__ import annotations

import os
import posixpath
import re
import stat
import threading
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from cycledistill.recipes.errors import DataError
from cycledistill.recipes.reading.guard import ARCHIVE, FILE, reading


class StoredFiles:
    """Reads files by name.

    Args:
        root: A folder, or a zip file with an optional folder inside it: ``"coco.zip/val2017"``. Where there is no
            folder ``val2017`` but a ``val2017.zip`` beside its place, that one serves, with or without a folder
            ``val2017`` inside, as COCO's own files have it.
        allow_outside: Read names that lead out of the root, by ``..`` or as absolute paths, too. Names come from
            annotation files, and whoever wrote one could have any file of this machine read. An absolute path below
            the root is always read.

    Names are found in their other spellings too: ``./a.png``, with backslashes, with accents composed or not (as
    systems differ), and in zip files whose names do not say that they are UTF-8. Links are followed in a folder, where
    its owner put them; one inside a zip file is refused. Each process opens the zip for itself, so a store may be
    handed to the workers of a data loader.

    Raises:
        DataError: There is neither a folder nor a zip file there.
    """

    error: ClassVar[type[DataError]] = DataError
    """What is raised; a subclass may say it more closely."""

    def __init__(self, root: str | Path, *, allow_outside: bool = False) -> None:
        self.root, self.allow_outside = Path(root), allow_outside
        self.archive, self.inside = self._split()
        self._open: tuple[int, int, zipfile.ZipFile] | None = None

    def names(self) -> list[str]:
        """All files in the zip file, in the folder of it that is the root; nothing of a folder."""
        if self.archive is None:
            return []
        with reading(self.archive, ARCHIVE, self.error), zipfile.ZipFile(self.archive) as opened:
            names = [each.filename for each in opened.infolist() if not each.is_dir()]
        return [name[len(self.inside) :] for name in names if name.startswith(self.inside)]

    def read_bytes(self, name: str) -> bytes:
        """The contents of a file.

        Raises:
            DataError: The file is missing or cannot be read, or its name leads out of the root.
        """
        self.check_inside(name)
        with reading(self.root / name, ARCHIVE if self.archive else FILE, self.error):
            below = os.path.relpath(name, self._whole_root()) if self._is_below(name) else name
            if self.archive is None or os.path.isabs(below):
                return _file(self.root, below).read_bytes()
            opened = self._zip()
            member = _member(opened, self.inside + below)
            if not stat.S_ISLNK(member.external_attr >> 16):
                return opened.read(member)
        raise self.error(f"{self.root / name}: a link inside a zip file is not followed; put the file itself there")

    def check_inside(self, name: str) -> None:
        """Refuse a name that leads out of the root.

        Raises:
            DataError: It does, and ``allow_outside`` is not set.
        """
        if self.allow_outside:
            return
        absolute = os.path.isabs(name) or os.path.splitdrive(name)[0]
        if _goes_up(name) or (absolute and not self._is_below(name)):
            raise self.error(
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

    def _split(self) -> tuple[Path | None, str]:
        """The zip file and the folder in it; nothing where the root is a folder."""
        root = self.root
        if root.is_dir():
            return None, ""
        for archive in (root, *root.parents):
            if archive.suffix == ".zip" and archive.is_file():
                inside = root.relative_to(archive).as_posix()
                return archive, "" if inside == "." else f"{inside}/"
        beside = root.with_name(f"{root.name}.zip") if root.name else root
        if beside.is_file():
            folder = f"{root.name}/"
            with reading(beside, ARCHIVE, self.error), zipfile.ZipFile(beside) as opened:
                names = (name.removeprefix("./") for name in opened.namelist())
                return beside, folder if any(name.startswith(folder) for name in names) else ""
        raise self.error(f"{root}: there is no folder and no zip file here; give the folder that holds the pictures")


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
