"""Whose poses: boxes from a file, or from a detector; without either, one person who fills the picture."""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from torch import nn

from cycledistill.recipes.prediction.frames import Frame
from cycledistill.recipes.prediction.sources import PictureFiles, Source

from ..data.detections import Detected
from ..data.images import PoseDataError
from ..detector import detect_persons
from .sources import Turned

_logger = logging.getLogger(__name__)

Boxes = Callable[[Frame], Detected]
"""What finds the persons of a frame."""

ImageId = int | str


def whole_picture(frame: Frame) -> Detected:
    """One person, who fills the picture."""
    return Detected(np.array([[0.0, 0.0, *frame.size]]), np.ones(1))


@dataclass(frozen=True)
class DetectedBoxes:
    """Boxes by a detector, a frame at a time; see `detect_persons`."""

    detector: nn.Module
    threshold: float = 0.3

    def __call__(self, frame: Frame) -> Detected:
        """The persons that the detector finds, best first."""
        return detect_persons(self.detector, [frame.pixels], self.threshold)[0]


@dataclass(frozen=True)
class FileBoxes:
    """Boxes of a file, by the picture's name below its source, by its file name alone, or by its number.

    Attributes:
        path: The file.
        found: What the file calls a picture -> its persons.
        ids: Name -> id, where the file lists its pictures with both.
        sizes: Name -> width and height, where it says them.
        keys: Name of a picture -> what the file calls it, once `of` was told which pictures there are.
    """

    path: Path
    found: Mapping[ImageId, Detected]
    ids: Mapping[str, ImageId] = field(default_factory=dict)
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    keys: Mapping[str, ImageId | None] | None = None

    def __call__(self, frame: Frame) -> Detected:
        """The picture's persons; none where the file has no box for it.

        Raises:
            PoseDataError: The file says another size of the picture.
        """
        key = self._key(frame)
        size = self.sizes.get(key, frame.size)  # type: ignore[arg-type]
        if frame.size != size:
            raise PoseDataError(
                f"{frame.name} is {frame.size[0]} x {frame.size[1]} pixels, and in {self.path} {size[0]} x {size[1]}: "
                "the boxes are of another copy of the picture, or of one that is turned (EXIF), which --exif ignore "
                "does not"
            )
        return self.found.get(key, Detected(np.empty((0, 4)), np.empty(0), ()))  # type: ignore[arg-type]

    def image_id(self, frame: Frame) -> ImageId:
        """The picture's id in the file; its own number where the file lists no ids."""
        return self.ids.get(self._key(frame), frame.number)  # type: ignore[arg-type]

    def of(self, source: Source) -> FileBoxes:
        """The boxes of just these pictures.

        Raises:
            PoseDataError: A file name without its folder stands for several of them.
        """
        if not isinstance(source, PictureFiles) or self.keys is not None:
            return self
        keys = {
            name: self._called(name, number if source.numbered else None)
            for name, number in zip(source.names, source.ids, strict=True)
        }
        exact = {name for name, key in keys.items() if name == key}
        others: dict[ImageId, list[str]] = defaultdict(list)
        for name, key in keys.items():
            if key is not None and name != key:
                if key in exact:
                    keys[name] = None  # the box is that of the picture which is called so in full
                else:
                    others[key].append(name)
        for key, names in others.items():
            if len(names) > 1:
                raise PoseDataError(
                    f"{self.path}: {key!r} may be any of {len(names)} pictures ({', '.join(names[:3])}): where folders "
                    f"have pictures of the same name, names below {source.name} are expected"
                )
        return dataclasses.replace(self, keys=keys)

    def sized(self, source: PictureFiles) -> PictureFiles:
        """The pictures, turned by their EXIF data only where that gives them the size that the file says."""
        sizes = {name: self.sizes[key] for name, key in (self.keys or {}).items() if key in self.sizes}  # type: ignore
        if sizes and source.decoder == Turned("apply"):
            return dataclasses.replace(source, decoder=Turned("auto", sizes))
        return source

    def check(self, source: PictureFiles) -> None:
        """Refuse a file that is about other pictures, before any is read; say how many have no box.

        Raises:
            PoseDataError: It has no box for any of them, or they cannot be told by its numbers.
        """
        names, keys = source.names, self.of(source).keys or {}
        missing = [name for name in names if keys[name] not in self.found]
        if len(missing) == len(names):
            own = ", ".join(map(repr, list(self.found)[:3])) or "nothing"
            raise PoseDataError(
                f"{self.path} has no box for any of the {len(names)} pictures: it calls its own {own}, these are "
                f"{', '.join(names[:3])}. {_ADVICE if _are_numbers(self.found) else _EXPECTED}"
            )
        if missing:
            _logger.warning("%d of %d pictures have no box in %s: %s", len(missing), len(names), self.path, missing[0])
        unused = len(self.found) - len({keys[name] for name in names} & set(self.found))
        if unused:
            _logger.info("%d pictures of %s are not among those given", unused, self.path)

    def _key(self, frame: Frame) -> ImageId | None:
        """What the file calls a frame."""
        if self.keys is None:
            return self._called(frame.name, frame.number)
        return self.keys.get(frame.name)

    def _called(self, name: str, number: int | None) -> ImageId | None:
        """What the file calls a picture; by its number where it is named by that, and not where it is just counted."""
        path = PurePosixPath(name)
        numbered = number is not None and path.stem.isdecimal() and int(path.stem) == number
        for key in (name, path.name, *((number, str(number)) if numbered else ())):
            if key is not None and (key in self.found or key in self.ids):
                return key
        return None


_EXPECTED = "A file name or, where pictures are named by numbers, an image_id is expected"
_ADVICE = (
    "An image_id tells pictures that are all named by different numbers, and no others: give a file of annotations, "
    "which lists names with ids, or write file names"
)


def _are_numbers(keys: Iterable[ImageId]) -> bool:
    return all(str(key).isdecimal() for key in keys)
