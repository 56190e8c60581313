"""The pictures that several cameras took of the same moments, moment after moment, whatever each is given as."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cycledistill.integrations.coco.prediction.sources import open_source
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.recipes.prediction.frames import Frame
from cycledistill.recipes.prediction.sources import PictureFiles, Source
from cycledistill.recipes.reading.numbered import picture_numbers
from cycledistill.recipes.reading.pixels import check_bytes
from cycledistill.recipes.reading.rates import is_same_rate

_logger = logging.getLogger(__name__)

Given = str | os.PathLike[str] | Source | Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
"""A folder of pictures or a video, see `open_source`; or RGB arrays (H, W, 3) of bytes, one a moment."""
Broken = Literal["stop", "skip"]


_FEW, _PART = 5, 0.02
"""Frames, and which part of all, by which a video may be shorter or longer than it says of itself."""


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

    @property
    def total(self) -> int | None:
        """How many moments there are, as far as that is known before pictures are read."""
        if self.numbered:
            return len({number for source in self.sources.values() for number in picture_numbers(source.names) or ()})  # type: ignore[union-attr]
        known = [_length(source, estimated=True) for source in self.sources.values()]
        return max((each for each in known if each is not None), default=None)

    def moments(self, broken: Broken = "stop") -> Iterator[tuple[int, dict[str, Frame]]]:
        """The number of each moment, and the views that have a picture of it.

        Args:
            broken: Whether a picture that cannot be read stops all, or is left out (and logged).

        Raises:
            LiftingDataError: Views of other lengths, where moments are told by their order; before the first moment,
                where videos say so themselves.
            DataError: A picture that cannot be read.
        """
        if not self.numbered and broken == "stop":
            self._check_lengths()
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

    def _check_lengths(self) -> None:
        """Refuse views that are of other lengths by far; what a video says of itself may be off by some frames."""
        totals = {name: _length(source, estimated=True) for name, source in self.sources.items()}
        known = [total for total in totals.values() if total is not None]
        if known and max(known) - min(known) > max(_FEW, _PART * max(known)):
            raise LiftingDataError(
                f"the views have different numbers of pictures: {_told(totals)}, as the files say: are these videos of "
                "the same moments, from first to last? Cut them so that they are"
            )

    def _frames(self, source: Any, broken: Broken) -> Iterator[Frame]:
        if isinstance(source, PictureFiles):
            counted = picture_numbers(source.names) if self.numbered else None
            numbers = dict(zip(source.names, counted or range(len(source.names)), strict=True))
            for frame in source.frames(broken):
                yield Frame(frame.name, numbers[frame.name], frame.pixels)
        elif hasattr(source, "frames"):
            for place, frame in enumerate(source.frames(broken)):
                yield Frame(frame.name, place, frame.pixels)
        else:
            named = ((f"picture {place}", place, each) for place, each in enumerate(source))
            yield from (Frame(name, place, check_bytes(each, name, LiftingDataError)) for name, place, each in named)


def open_views(views: Mapping[str, Given]) -> OpenViews:
    """Open what is given of each camera; of folders nothing but names is read yet.

    Raises:
        LiftingDataError: Fewer than two views, views of other frame rates, or of other lengths, as far as that is
            known.
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
    rates = {name: getattr(source, "fps", None) for name, source in sources.items()}
    known = [rate for rate in rates.values() if rate is not None]
    if known and not is_same_rate(min(known), max(known)):
        raise LiftingDataError(f"the views have different numbers of frames a second: {_told(rates)}")
    numbered = all(isinstance(source, PictureFiles) and _rising(source.names) for source in sources.values())
    if not numbered:
        lengths = {name: _length(source) for name, source in sources.items()}
        if len(set(lengths.values()) - {None}) > 1:
            raise LiftingDataError(
                f"the views have different numbers of pictures: {_told(lengths)}; which are of one moment is known "
                "from numbers in the names of all pictures alone: names that are alike but for one"
            )
        _logger.info("pictures of one moment are told by their order in each view: names do not number them in all")
    else:
        first = {name: (picture_numbers(source.names) or [0])[0] for name, source in sources.items()}
        if set(first.values()) == {0, 1}:
            _logger.warning("views count their pictures from 0 and from 1: %s; one number is one moment", _told(first))
    return OpenViews(sources, numbered)


def _told(values: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items() if value is not None)


def _rising(names: Sequence[str]) -> bool:
    numbers = picture_numbers(names)
    return numbers is not None and all(one < other for one, other in pairwise(numbers))


def _length(source: Any, estimated: bool = False) -> int | None:
    """How many pictures, where that is certain: what a video says of itself is an estimate."""
    if isinstance(source, PictureFiles):
        return len(source.names)
    if hasattr(source, "frames"):
        return source.total if estimated else None
    return len(source)
