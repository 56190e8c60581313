"""Results of single pictures as persons over time: grouped by track, in the order of their pictures."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from cycledistill.recipes.reading.numbered import natural

from ...errors import LiftingDataError
from .frame_order import check_counts, frame_numbers, spread, step_of, track_of
from .joint_sets import known_set
from .person import Keypoints, Results, table

_logger = logging.getLogger(__name__)


def persons_of(results: Results, path: Path) -> list[Keypoints]:
    """Results sorted into tracks and by their pictures, zeros for pictures between that have none.

    Raises:
        LiftingDataError: Nobody; results without picture or keypoints; several persons in a picture that no track tells
            apart; ids that count no frames.
    """
    entries = results.entries
    if not entries:
        raise LiftingDataError(f"{path}: nobody was found in any picture")
    if any("keypoints" not in entry or "image_id" not in entry for entry in entries):
        raise LiftingDataError(f"{path}: a list of objects with image_id and keypoints is expected")
    named = [track_of(entry) for entry in entries]
    if None in named and len(set(named)) > 1:
        _logger.warning("%s: %d of %d results have no track and are left out", path, named.count(None), len(named))
        entries = [entry for entry, track in zip(entries, named, strict=True) if track is not None]
        named = [track for track in named if track is not None]
    names = [entry["image_id"] for entry in entries]
    numbers = frame_numbers(names)
    keys: list[Any] = [natural(str(name)) for name in names] if numbers is None else numbers
    owned: dict[str | None, list[int]] = {}
    for place in sorted(range(len(keys)), key=keys.__getitem__):
        owned.setdefault(named[place], []).append(place)
    for track, own in owned.items():
        _check_single(own, keys, names, track if len(owned) > 1 else None, path)
    step = None if numbers is None else step_of(numbers)
    if numbers is not None and step is not None:
        check_counts(numbers, step, path)
    found = []
    for track, own in owned.items():
        keypoints, at = [entries[place]["keypoints"] or None for place in own], None
        if numbers is not None and step is not None:
            counted = [numbers[place] for place in own]
            keypoints = spread(keypoints, counted, step)
            at = counted[0] + step * np.arange(len(keypoints), dtype=np.int64)
        pixels, layout = known_set(table(keypoints, path))
        person = Keypoints(pixels, track=track, frames=at, layout=layout)
        found.append((len(own), replace(person, **results.facts)))
    return [one for _, one in sorted(found, key=lambda pair: -pair[0])]


def _check_single(own: list[int], keys: list[Any], names: list[Any], track: str | None, path: Path) -> None:
    for one, other in pairwise(own):
        if keys[one] == keys[other]:
            of = f" of track {track}" if track is not None else ""
            raise LiftingDataError(
                f"{path}: picture {names[one]} has several persons{of}, and nothing tells which is which from picture "
                "to picture: run the detector with its tracker, which writes a track_id (AlphaPose: idx), or write one "
                "person's results to a file of their own"
            )
