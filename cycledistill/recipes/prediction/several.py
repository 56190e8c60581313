"""Several sources as one."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cycledistill.recipes.errors import DataError
from cycledistill.recipes.prediction.frames import Frame
from cycledistill.recipes.prediction.sources import Decoder, Source, find_source


@dataclass(frozen=True)
class Several:
    """Sources one after the other; frames have the name of their source before their own, and count through."""

    sources: tuple[Source, ...]
    limit: int | None = None
    fps: None = None

    @property
    def name(self) -> str:
        """What messages call them."""
        return ", ".join(each.name for each in self.sources[:3]) + (", ..." if len(self.sources) > 3 else "")

    @property
    def total(self) -> int | None:
        """How many frames there are, where every source knows."""
        known = [each.total for each in self.sources if each.total is not None]
        total = sum(known) if len(known) == len(self.sources) else None
        return total if self.limit is None or total is None else min(total, self.limit)

    @property
    def files(self) -> Sequence[Path]:
        """The files of all."""
        return [file for each in self.sources for file in each.files]

    @property
    def folders(self) -> Sequence[Path]:
        """The folders of all."""
        return [folder for each in self.sources for folder in each.folders]

    def frames(self, broken: Literal["stop", "skip"] = "stop") -> Iterator[Frame]:
        """See `Source`."""
        places = itertools.count()
        for source in self.sources:
            for frame in source.frames(broken):
                place = next(places)
                if place == self.limit:
                    return
                yield dataclasses.replace(frame, name=_named(source, frame), number=place)
                del frame  # it must not live on while the next one is read


def find_sources(sources: Sequence[str], decoder: Decoder, limit: int | None = None) -> Source:
    """What a user means by one or more sources, see `find_source`.

    Raises:
        DataError: See there; or a camera, which has no end, is one of several.
    """
    found = [find_source(each, decoder, limit) for each in sources]
    if len(found) == 1:
        return found[0]
    for each in found:
        if hasattr(each, "stopped"):
            raise DataError(f"{each.name} has no end, and stands among other sources: give it alone")
    return Several(tuple(found), limit)


def _named(source: Source, frame: Frame) -> str:
    """A picture that was given by itself is called as it was typed."""
    alone = len(source.files) == 1 and Path(source.name).name == frame.name
    return source.name if alone else f"{source.name}/{frame.name}"
