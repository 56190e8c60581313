"""A user's file of 2D keypoints: one person over time, from JSON or npz."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import LiftingDataError
from .npz import open_npz

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keypoints:
    """Keypoints (T, J, 2), or (T, J, 3) with a confidence, in pixels, and the picture's size where the file says it."""

    pixels: NDArray[np.float32]
    width: float | None = None
    height: float | None = None


def read_keypoints(path: str | Path) -> Keypoints:
    """Read a file of keypoints.

    npz: ``keypoints``, (T, J, 2 or 3) or (T, 3J), and ``width`` and ``height`` if known. JSON: an object with the same
    names; a list of the frames' keypoints; or COCO's list of results, one person a picture, in the pictures' order,
    each with ``keypoints`` (x, y, confidence, x, ...) and ``image_id``.

    Args:
        path: ``.npz`` or ``.json``.

    Raises:
        LiftingDataError: Not there, of another form, or with several persons in a picture.
    """
    path = Path(path)
    if path.suffix == ".npz":
        data: Any = open_npz(path)
    elif path.suffix == ".json":
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise LiftingDataError(f"{path} cannot be read: {error}") from error
        except ValueError as error:
            raise LiftingDataError(f"{path} is not JSON: {error}") from error
    else:
        raise LiftingDataError(f"{path}: a .json or .npz file of keypoints is expected")
    if isinstance(data, dict) and "keypoints" not in data:
        raise LiftingDataError(f"{path} has no 'keypoints'; it has {', '.join(sorted(data)[:5]) or 'nothing'}")
    if isinstance(data, dict):
        return Keypoints(_array(data["keypoints"], path), _side(data, "width", path), _side(data, "height", path))
    if isinstance(data, list) and data and all(isinstance(entry, dict) for entry in data):
        return Keypoints(_array(_results(data, path), path))
    return Keypoints(_array(data, path))


def fill_gaps(pixels: NDArray[np.float32], source: str) -> NDArray[np.float32]:
    """Frames in which every keypoint is 0 or one is not finite, interpolated from the nearest frames around them.

    Raises:
        LiftingDataError: No frame has a person.
    """
    empty = gaps(pixels)
    if not empty.any():
        return pixels
    if empty.all():
        raise LiftingDataError(f"{source}: no frame has a person to fill the others from")
    times, known = np.arange(len(pixels)), np.flatnonzero(~empty)
    flat = pixels.reshape(len(pixels), -1)
    filled = np.stack([np.interp(times, known, column[known]) for column in flat.T], axis=1)
    _logger.warning(
        "%s: %d of %d frames had no person and were filled from their neighbours", source, empty.sum(), len(empty)
    )
    return filled.reshape(pixels.shape).astype(np.float32)


def gaps(pixels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Frames in which every keypoint is 0 or one is not finite."""
    finite, some = np.isfinite(pixels).all(axis=(1, 2)), pixels[..., :2].any(axis=(1, 2))
    return np.asarray(~(finite & some))


def _results(entries: list[dict[str, Any]], path: Path) -> list[Any]:
    if any("keypoints" not in entry or "image_id" not in entry for entry in entries):
        raise LiftingDataError(f"{path}: a list of objects with image_id and keypoints is expected")
    names = [entry["image_id"] for entry in entries]
    if len(set(map(str, names))) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise LiftingDataError(
            f"{path}: picture {twice} has several persons; write one person's results to a file of their own"
        )
    numbers = all(isinstance(name, int) for name in names)
    order = sorted(range(len(names)), key=lambda place: names[place] if numbers else str(names[place]))
    return [entries[place]["keypoints"] for place in order]


def _array(value: Any, path: Path) -> NDArray[np.float32]:
    try:
        found = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise LiftingDataError(
            f"{path}: the keypoints are no table of numbers, the same for every frame: {error}"
        ) from error
    if found.ndim == 2 and found.shape[1] and found.shape[1] % 3 == 0:
        found = found.reshape(len(found), -1, 3)  # COCO's x, y, confidence, x, ...
    return found


def _side(data: dict[str, Any], name: str, path: Path) -> float | None:
    if name not in data:
        return None
    try:
        return float(data[name])
    except (TypeError, ValueError) as error:
        raise LiftingDataError(f"{path}: {name}={data[name]!r}, a number of pixels is expected") from error
