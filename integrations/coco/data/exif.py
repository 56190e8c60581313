"""Cameras note how they were held in a file's EXIF data, and store the pixels as the sensor gave them."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Exif = Literal["auto", "apply", "ignore"]
"""Whether a picture is turned as its EXIF data says: where that fits the size in the annotation file, always, never."""

_TAG = 0x0112
_MARKS = (b"Exif\0\0", b"eXIf", b"EXIF")  # as JPEG, PNG and WebP hold it
_TIFF = (b"II*\0", b"MM\0*")  # OpenCV and Pillow turn such files themselves, asked or not


def orientation(data: bytes) -> int:
    """The EXIF orientation of an encoded picture, 1 to 8; 1, as stored, where none is noted or it cannot be read.

    1 for TIFF files too, which their decoders turn.

    Source: Exif 2.32 (CIPA DC-008), tag 0x0112.
    """
    if data.startswith(_TIFF) or not any(mark in data for mark in _MARKS):
        return 1  # nearly all data sets: no second look at the file
    try:
        with Image.open(io.BytesIO(data)) as opened:
            noted = opened.getexif().get(_TAG, 1)
    except Exception:  # whatever Pillow makes of a damaged file: that it is damaged is said where it is decoded
        return 1
    return noted if isinstance(noted, int) and 1 <= noted <= 8 else 1


def turned(pixels: NDArray[np.uint8], noted: int) -> NDArray[np.uint8]:
    """A picture as a viewer shows it: (H, W, 3) turned and mirrored by its EXIF orientation; from 5 on sides change."""
    if noted >= 5:
        pixels = pixels.transpose(1, 0, 2)
    down, across = noted in (3, 4, 7, 8), noted in (2, 3, 6, 7)
    if noted == 1:
        return pixels
    return np.ascontiguousarray(pixels[:: -1 if down else 1, :: -1 if across else 1])
