"""What is to be predicted on: a picture, a folder, a glob, a zip file, a video or a camera, a frame after the other."""

from __future__ import annotations

import glob
import logging
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cycledistill.recipes.errors import DataError
from cycledistill.recipes.prediction.ahead import in_order
from cycledistill.recipes.prediction.frames import Frame
from cycledistill.recipes.reading.numbered import PICTURES, VIDEOS, natural
from cycledistill.recipes.reading.stored import StoredFiles

_logger = logging.getLogger(__name__)

Decoder = Callable[[Path], Callable[[str], NDArray[np.uint8]]]
"""Opens a folder or zip file, once a thread: what it returns reads a picture in it by name, as RGB bytes (H, W, 3)."""

_LARGEST_ID = 2**53  # what every reader of JSON holds exactly


class Source(Protocol):
    """Where frames come from.

    Attributes:
        name: What messages call it.
        fps: Frames a second of a video; ``None``: pictures, each for itself.
        total: How many frames there are, as far as that is known; a video's own figure may be wrong.
        files: The files that are read.
        folders: The folders whose pictures are read; none of a zip file, a video or a camera.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def fps(self) -> float | None: ...  # noqa: D102
    @property
    def total(self) -> int | None: ...  # noqa: D102
    @property
    def files(self) -> Sequence[Path]: ...  # noqa: D102
    @property
    def folders(self) -> Sequence[Path]: ...  # noqa: D102

    def frames(self, broken: Literal["stop", "skip"] = "stop") -> Iterator[Frame]:
        """Each frame in order, read when it is asked for.

        Raises:
            DataError: One cannot be read; with ``"skip"`` a picture is left out, and the log counts them.
        """


@dataclass(frozen=True)
class PictureFiles:
    """Picture files in a folder or zip file, in the order of their names; a few are read ahead.

    Attributes:
        decoder: What reads them.
        tree: The folder that was read at any depth, if there is one.
    """

    name: str
    root: Path
    names: tuple[str, ...]
    decoder: Decoder
    tree: Path | None = None
    fps: None = None

    @property
    def total(self) -> int:
        """How many pictures there are."""
        return len(self.names)

    @property
    def files(self) -> Sequence[Path]:
        """The pictures, or the zip file that they are in."""
        archive = StoredFiles(self.root).archive
        return [self.root / name for name in self.names] if archive is None else [archive]

    @property
    def folders(self) -> Sequence[Path]:
        """Those that the pictures are in, and the one that was read at any depth; none of a zip file.

        Nor of a picture that was named by itself: predictions beside it are no pictures of the next run.
        """
        if StoredFiles(self.root).archive is not None or Path(self.name) == self.root / self.names[0]:
            return ()
        return [*dict.fromkeys(each.parent for each in self.files), *([] if self.tree is None else [self.tree])]

    @property
    def ids(self) -> list[int]:
        """COCO's number of each picture where all are `numbered`; else 1, 2, 3 and so on."""
        return self._numbers() if self.numbered else list(range(1, len(self.names) + 1))

    @property
    def numbered(self) -> bool:
        """Whether all pictures are named by different numbers."""
        numbers = self._numbers()
        return len(set(numbers)) == len(self.names) and max(numbers, default=0) < _LARGEST_ID

    def _numbers(self) -> list[int]:
        stems = [PurePosixPath(name).stem for name in self.names]
        return [int(stem) for stem in stems if stem.isdecimal()]

    def frames(self, broken: Literal["stop", "skip"] = "stop") -> Iterator[Frame]:
        """See `Source`."""
        stores = threading.local()  # an open zip file a thread

        def read(place: tuple[int, str]) -> Frame | DataError:
            if not hasattr(stores, "read"):
                stores.read = self.decoder(self.root)
            try:
                return Frame(place[1], place[0], stores.read(place[1]))
            except DataError as error:
                return error

        return readable(in_order(read, zip(self.ids, self.names, strict=True)), broken, self.name)


def readable(
    frames: Generator[Frame | DataError, None, None], broken: Literal["stop", "skip"], source: str
) -> Iterator[Frame]:
    """The frames without what could not be read, which the log counts by the source: there may be several.

    Raises:
        DataError: The first that could not be read, with ``"stop"``.
    """
    count = skipped = 0
    with closing(frames):
        for frame in frames:
            count += 1
            if isinstance(frame, Frame):
                yield frame
                del frame  # it must not live on while the next one is read
            elif broken == "stop":
                raise frame
            else:
                skipped += 1
                _logger.warning("skipped: %s", frame)
    if skipped:
        _logger.warning("%s: %d of %d pictures could not be read and were skipped", source, skipped, count)


def find_source(source: str | os.PathLike[str], decoder: Decoder, limit: int | None = None) -> Source:
    """What a user means by a source. Of pictures nothing but names is read yet; a video or a camera is opened.

    Args:
        source: A picture; a folder, read at any depth; a zip file, or a folder in one (``photos.zip/holiday``); a glob
            (``"photos/**/*.jpg"``); a video; or the number of a camera. What exists as a file or folder is no camera.
        decoder: What reads pictures.
        limit: Take at most so many frames.

    Returns:
        Pictures in the order of their names, numbers in them compared as numbers. Of a folder, zip file or glob the
        files that are named like pictures; hidden ones and what macOS adds to zip files are left out.

    Raises:
        DataError: There is no such thing, no picture in it, or a file that is named like neither; a video that
            cannot be read or has no frames; a camera that is not there; a video or camera without OpenCV.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit={limit}: a number of frames, 1 or more, is expected")
    text, path = os.fspath(source), Path(source)
    suffix = path.suffix.lower()
    pictures = _pictures_of(text, path, decoder, limit)
    if pictures is not None:
        return pictures
    if path.is_file() and suffix in VIDEOS:
        return _moving(path, limit)
    if path.is_file():
        raise DataError(
            f"{path}: a picture ({', '.join(sorted(PICTURES))}), a video ({', '.join(sorted(VIDEOS))}) or a zip file "
            "of pictures is expected, by the end of its name"
        )
    if text.isdecimal():
        return _moving(int(text), limit)
    raise DataError(
        f"{text}: there is no such picture, folder, zip file or video; a glob (photos/*.jpg) or the number of a camera "
        "(0) is possible too"
    )


def _moving(what: Path | int, limit: int | None) -> Source:
    """A video or a camera, which OpenCV reads, and nothing else of this does."""
    try:
        from cycledistill.recipes.prediction.videos import open_camera, open_video
    except ModuleNotFoundError as error:
        named = f"camera {what}" if isinstance(what, int) else what
        raise DataError(
            f"{named}: videos and cameras are read by OpenCV, which is not installed: pip install "
            "opencv-python-headless"
        ) from error
    return open_camera(what, limit) if isinstance(what, int) else open_video(what, limit)


def _pictures_of(text: str, path: Path, decoder: Decoder, limit: int | None) -> PictureFiles | None:
    """The pictures of a source, ``None`` where it is no source of pictures."""
    if path.is_dir():
        return _pictures(text, path, _below(path), decoder, limit, tree=path)
    if path.is_file() and path.suffix.lower() in PICTURES:
        return PictureFiles(text, path.parent, (path.name,), decoder)
    if path.suffix.lower() == ".zip" or any(each.suffix.lower() == ".zip" and each.is_file() for each in path.parents):
        return _pictures(text, path, StoredFiles(path).names(), decoder, limit)
    return _matching(text, decoder, limit) if glob.has_magic(text) and not path.exists() else None


def _matching(pattern: str, decoder: Decoder, limit: int | None) -> PictureFiles:
    found = [Path(name) for name in glob.glob(pattern, recursive=True) if os.path.isfile(name)]
    recursive = "**" in Path(pattern).parts
    if recursive:  # through links that lead back each file would be there many times: the shortest way is taken
        found = list(
            {os.path.realpath(each): each for each in sorted(found, key=lambda each: -len(each.parts))}.values()
        )
    fixed = [part for part in Path(pattern).parts[:-1] if not glob.has_magic(part)]
    base = Path(os.path.commonpath([each.parent for each in found])) if found else Path(*fixed)
    names = [each.relative_to(base).as_posix() for each in found]
    return _pictures(pattern, base, names, decoder, limit, tree=base if recursive else None)


def _pictures(
    source: str, root: Path, names: Sequence[str], decoder: Decoder, limit: int | None, tree: Path | None = None
) -> PictureFiles:
    suffixes = {name: PurePosixPath(name).suffix.lower() for name in names}
    chosen = sorted((name for name in names if suffixes[name] in PICTURES and not _is_hidden(name)), key=natural)
    others = [name for name in names if name not in set(chosen)]
    if not chosen:
        videos = [name for name in names if suffixes[name] in VIDEOS]
        advice = f"; there are {len(videos)} videos: give one, such as {root / videos[0]}" if videos else ""
        seen = f"{len(names)} files, none of them named like a picture" if names else "no file"
        raise DataError(f"{source}: {seen} ({', '.join(sorted(PICTURES))}){advice}")
    if others:
        _logger.info(
            "%s: %d files are left out, no pictures by their names, such as %s", source, len(others), others[0]
        )
    return PictureFiles(source, root, tuple(chosen[:limit]), decoder, tree)


def _below(folder: Path) -> list[str]:
    """All files; folders that are linked to are read too, each once."""
    found, seen = list[str](), set[str]()
    for above, folders, names in os.walk(folder, followlinks=True):
        place = os.path.realpath(above)
        if place in seen:
            folders.clear()  # a link that leads back
            continue
        seen.add(place)
        found += [Path(above, name).relative_to(folder).as_posix() for name in names]
    return found


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def check_pictures(source: str, model: str, more: str = "") -> None:
    """Refuse a file of keypoints or boxes where pictures are taken, before anything is opened.

    Args:
        source: What was typed.
        model: The model that was.
        more: What else there is to say.

    Raises:
        DataError: It is one, by its name.
    """
    if Path(source).suffix.lower() in (".json", ".jsonl", ".npz", ".npy"):
        raise DataError(
            f"{source} is a file of keypoints or boxes, and {model} takes pictures and videos: keypoints are lifted by "
            f"a model of `cycledistill train human36m`{more}"
        )
