"""The pictures that several cameras took of the same moments, moment after moment, whatever each is given as."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cycledistill.integrations.coco.prediction.frames import Frame
from cycledistill.integrations.coco.prediction.sources import PictureFiles, Source, open_source
from cycledistill.integrations.human36m.errors import LiftingDataError

from ..data.moments import picture_number

Given = str | os.PathLike[str] | Source | Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
"""A folder of pictures or a video, see `open_source`; or RGB arrays (H, W, 3) of bytes, one a moment."""
Broken = Literal["stop", "skip"]


@dataclass(frozen=True)
class OpenViews:
    """The views of a scene, opened.

    Attributes:
        sources: By the cameras' names.
        numbered: Whether moments are told by the numbers of pictures, so that a view may lack some; else by their
            order, and all must be of one length.
    """

    sources: Mapping[str, Source | Sequence[NDArray[np.uint8]]]
    numbered: bool

    def moments(self, broken: Broken = "stop") -> Iterator[tuple[int, dict[str, Frame]]]:
        """The number of each moment, and the views that have a picture of it.

        Args:
            broken: Whether a picture that cannot be read stops all, or is left out (and logged).

        Raises:
            LiftingDataError: Views of other lengths, where moments are told by their order.
            DataError: A picture that cannot be read.
        """
        waiting = {name: self._frames(source, broken) for name, source in self.sources.items()}
        heads = {name: next(frames, None) for name, frames in waiting.items()}
        while any(heads.values()):
            number = min(head.number for head in heads.values() if head is not None)
            now = {name: head for name, head in heads.items() if head is not None and head.number == number}
            if not self.numbered and broken == "stop" and len(now) < len(heads):
                over = ", ".join(name for name in heads if name not in now)
                raise LiftingDataError(
                    f"view {over} ends after {number} pictures, {', '.join(now)} goes on: views are of one length, or "
                    "their pictures are numbered (the last number in each name), which tells those of one moment"
                )
            yield number, now
            for name in now:
                heads[name] = next(waiting[name], None)

    def _frames(self, source: Any, broken: Broken) -> Iterator[Frame]:
        if isinstance(source, PictureFiles):
            places = {name: place for place, name in enumerate(source.names)}
            for frame in source.frames(broken):
                number = picture_number(frame.name) if self.numbered else places[frame.name]
                yield Frame(frame.name, number or 0, frame.pixels)
        elif hasattr(source, "frames"):
            for place, frame in enumerate(source.frames(broken)):
                yield Frame(frame.name, place, frame.pixels)
        else:
            yield from (Frame(f"picture {place}", place, _picture(each)) for place, each in enumerate(source))


def open_views(views: Mapping[str, Given]) -> OpenViews:
    """Open what is given of each camera; of folders nothing but names is read yet.

    Raises:
        LiftingDataError: Fewer than two views, or views of other lengths, as far as that is known.
        DataError: There is no such folder or video, or nothing in it.

    Example:
        >>> open_views({"front": "front", "left": "left"}).numbered
        True
    """
    if len(views) < 2:
        raise LiftingDataError(f"{len(views)} views ({', '.join(views) or 'none'}): two or more are needed for 3D")
    sources: dict[str, Any] = {
        name: open_source(each) if isinstance(each, (str, os.PathLike)) else each for name, each in views.items()
    }
    numbered = all(isinstance(source, PictureFiles) and _rising(source.names) for source in sources.values())
    if not numbered:
        lengths = {name: _length(source) for name, source in sources.items()}
        if len(set(lengths.values()) - {None}) > 1:
            told = ", ".join(f"{name} {length}" for name, length in lengths.items() if length is not None)
            raise LiftingDataError(
                f"the views have different numbers of pictures: {told}; which are of one moment is known from numbers "
                "in the names of all pictures alone"
            )
    return OpenViews(sources, numbered)


def _rising(names: Iterable[str]) -> bool:
    numbers = [picture_number(name) for name in names]
    return None not in numbers and all(one < other for one, other in pairwise(numbers))  # type: ignore[operator]


def _length(source: Any) -> int | None:
    """How many pictures, where that is certain: what a video says of itself is an estimate."""
    if isinstance(source, PictureFiles):
        return len(source.names)
    return None if hasattr(source, "frames") else len(source)


def _picture(given: Any) -> NDArray[np.uint8]:
    array = np.asarray(given)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise LiftingDataError(
            f"a picture of shape {array.shape}, {array.dtype}: RGB bytes (height, width, 3) are expected (OpenCV's "
            "frames are BGR: frame[..., ::-1])"
        )
    return array
