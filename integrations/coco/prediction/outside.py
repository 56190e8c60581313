"""Boxes of a file that lie outside their picture: a few are left out and counted, many are boxes of something else."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..data.coco_file.boxes import refuse_another_size, refuse_other_forms, touches
from ..data.detections import Detected

_logger = logging.getLogger(__name__)

_ENOUGH = 8  # boxes, from which on it can be told whether the file is about these pictures


@dataclass
class Outside:
    """What was left out so far.

    Attributes:
        name: What messages call the boxes.
        total: The boxes seen.
        count: Those of them that were outside.
        first: The picture of the first one.
    """

    name: str
    total: int = 0
    count: int = 0
    first: str = ""
    _early: list[tuple[NDArray[np.float64], NDArray[np.float64]]] | None = field(default_factory=list)

    def without(self, found: Detected, size: tuple[int, int], picture: str) -> Detected:
        """Those of a picture's boxes of which some is inside it, (N, 4) by its width and height."""
        sizes = np.tile(np.array(size, dtype=np.float64), (len(found.boxes), 1))
        seen = touches(found.boxes, sizes)
        self.total, self.count = self.total + len(seen), self.count + int((~seen).sum())
        if not self.first and not seen.all():
            self.first = picture
        if self._early is not None:
            self._early.append((found.boxes, sizes))
        return found[seen]

    def check(self, ended: bool = False) -> None:
        """Refuse boxes in another form, or of other pictures, as soon as there are enough to tell, or at the end.

        Raises:
            PoseDataError: The guess is named.
        """
        if self._early is not None and self.total and (ended or self.total >= _ENOUGH):
            boxes, sizes = map(np.concatenate, zip(*self._early, strict=True))
            refuse_other_forms(boxes, sizes, self.name)
            refuse_another_size(boxes, sizes, self.name)
            self._early = None
        if ended and self.count:
            _logger.warning(
                "%d of %d boxes left out: outside their picture, such as in %s", self.count, self.total, self.first
            )
