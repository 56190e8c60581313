"""One picture on its way from a source to files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cycledistill.versions import require

require("numpy")


@dataclass(frozen=True)
class Frame:
    """A picture of a folder, a zip file or a video.

    Attributes:
        name: Below its source, with ``/``; a video's frames are called by their numbers, ``"000012"``.
        number: Its number: COCO's, where the file is named by one; of a video's frame, counted from 0.
        pixels: (H, W, 3), RGB bytes.
    """

    name: str
    number: int
    pixels: NDArray[np.uint8]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]
