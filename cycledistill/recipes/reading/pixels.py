"""The pixels of a picture: of one that Pillow opened, or of an array."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cycledistill.versions import require

if TYPE_CHECKING:
    from PIL import Image

require("pillow", "numpy")


def check_bytes(image: object, name: str, error: type[Exception]) -> NDArray[np.uint8]:
    """A picture that is given as an array.

    Args:
        image: RGB bytes (H, W, 3).
        name: What an error calls it.
        error: What is raised.

    Raises:
        error: It is something else.
    """
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise error(
            f"{name} is an array {array.shape} of {array.dtype}: RGB bytes (height, width, 3), uint8, a file or a PIL "
            "image is expected (OpenCV's frames are BGR: frame[..., ::-1])"
        )
    return array


def to_rgb(image: Image.Image, file_format: str | None = None) -> Image.Image:
    """A picture in RGB; of 16 bits of grey the upper eight, as OpenCV reads such files, where Pillow makes all white.

    Args:
        image: The picture; its pixels need not have been read.
        file_format: What it was read from, ``"PNG"``, where ``image`` is a changed copy that does not know it.

    Returns:
        A picture of mode ``"RGB"``.

    Raises:
        ValueError: Its numbers have no known range (mode ``"I"`` or ``"F"``).

    Example:
        >>> with Image.open("depth.png") as image:
        ...     pixels = to_rgb(image)
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and (file_format or image.format) == "PNG"):
        from PIL import Image as pillow

        upper = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return pillow.fromarray(np.repeat(upper[..., None], 3, axis=2))
    if image.mode in ("I", "F"):
        raise ValueError(
            f"a picture of mode {image.mode!r}, whose numbers have no known range: convert it to 8 bits, mode 'L' or "
            "'RGB'"
        )
    return image.convert("RGB")
