"""Poses that move, beside the 2D keypoints and the pictures that they were lifted from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cycledistill.recipes.errors import RecipeError

from ..data.pose_files import check_target
from ..data.skeleton import JOINTS
from ..data.timing import check_rate
from ..errors import LiftingDataError
from .upright import check_body

Pixels = NDArray[np.uint8]
Array = NDArray[np.floating]

_SUFFIXES = (".gif", ".mp4")
_HEIGHTS = (64, 2160)


def animate(
    poses: Array,
    path: str | Path,
    frame_rate: float,
    *,
    keypoints: Array | None = None,
    size: tuple[float, float] | None = None,
    pictures: Iterable[Pixels | None] | None = None,
    height: int = 360,
) -> None:
    """An animation of poses: 2D in its picture, 3D from the front and from the side, where errors of depth show.

    The view goes with the person, the floor stays. The person's left is orange, the right blue.

    Args:
        poses: (T, 17, 3), metres, y up (:func:`upright`), NaN where a joint is not known.
        path: ``.gif`` or ``.mp4``. A GIF shows every second, third, ... frame, at most 25 a second.
        frame_rate: Frames a second.
        keypoints: (T, 17, 2), pixels, NaN where a joint is not known: drawn on the left.
        size: Width and height of the picture that ``keypoints`` are in.
        pictures: One a frame, (H, W, 3), RGB, of any size; ``None`` where there is none. Read as they are needed.
        height: Of the animation in pixels.

    Raises:
        LiftingDataError: Poses that are none, keypoints of another length, pictures of another shape than ``size`` or
            fewer than frames; another suffix, no such rate; or the file cannot be written.
        RecipeError: OpenCV or Pillow is not installed.

    Example:
        >>> animate(stand(upright(poses, "-y")), "walk.gif", 50, keypoints=pixels, size=(1920, 1080))
    """
    check_target(path, _SUFFIXES)
    check_rate(frame_rate)
    check_body(poses, "the poses", known=False)
    if not _HEIGHTS[0] <= height <= _HEIGHTS[1]:
        raise LiftingDataError(f"height={height!r}: {_HEIGHTS[0]} to {_HEIGHTS[1]} pixels are expected")
    if keypoints is not None:
        _check_keypoints(keypoints, size, len(poses))
    elif pictures is not None:
        raise LiftingDataError("pictures without keypoints: give both, (T, 17, 2) in pixels, and the pictures' size")
    need_films()
    from . import films

    step = films.every(path, frame_rate)
    shown = _frames(poses.astype(np.float64), keypoints, size, pictures, 2 * (height // 2), step, frame_rate)
    films.write_film(shown, path, frame_rate, len(poses))


def need_films() -> None:
    """Refuse an animation where what it needs is not installed.

    Raises:
        RecipeError: OpenCV or Pillow is not.
    """
    try:
        from . import films  # noqa: F401
    except ModuleNotFoundError as error:
        raise RecipeError("an animation needs OpenCV and Pillow: pip install opencv-python-headless pillow") from error


def _check_keypoints(keypoints: Array, size: tuple[float, float] | None, length: int) -> None:
    if keypoints.shape != (length, len(JOINTS), 2) or np.isinf(keypoints).any():
        raise LiftingDataError(
            f"keypoints of shape {keypoints.shape} for {length} poses: ({length}, {len(JOINTS)}, 2), the joints of the "
            "poses in pixels, is expected"
        )
    if size is None or not (min(size) > 0 and np.isfinite(size).all()):
        raise LiftingDataError(f"size={size!r}: width and height of the keypoints' picture in pixels are expected")


def _frames(
    poses: NDArray[np.float64],
    keypoints: Array | None,
    size: tuple[float, float] | None,
    pictures: Iterable[Pixels | None] | None,
    height: int,
    step: int,
    frame_rate: float,
) -> Iterator[Pixels]:
    """The frames that are shown, drawn one by one."""
    from .views import View, draw_keypoints, draw_view

    views = (View("3D", 25.0), View("from the side", 90.0))
    middle, span, floor = _stage(poses, frame_rate)
    given = iter(repeat(None) if pictures is None else pictures)
    for number, pose in enumerate(poses):
        picture = _next_picture(given, number, len(poses), size)
        if number % step:
            continue
        panels = [draw_view(pose, view, middle[number], span, floor, height) for view in views]
        if keypoints is not None and size is not None:
            width = 2 * max(1, round(height * size[0] / size[1] / 2))
            panels.insert(0, draw_keypoints(keypoints[number], size, height, width, picture))
        yield np.concatenate(panels, axis=1)


def _next_picture(
    pictures: Iterator[Pixels | None], number: int, length: int, size: tuple[float, float] | None
) -> Pixels | None:
    try:
        picture = next(pictures)
    except StopIteration:
        raise LiftingDataError(f"there are {number} pictures for {length} poses: one for each is expected") from None
    if picture is not None and size is not None:
        check_picture(picture, number, size)
    return picture


def check_picture(picture: Pixels, number: int, size: tuple[float, float]) -> None:
    """Refuse a picture that keypoints in a picture of another size cannot be shown on.

    Raises:
        LiftingDataError: No RGB bytes, or of another shape.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise LiftingDataError(f"picture {number}: {picture.dtype} of shape {picture.shape}: RGB bytes are expected")
    tall, wide = picture.shape[:2]
    if abs(wide / tall * size[1] / size[0] - 1) > 0.02:
        raise LiftingDataError(
            f"picture {number} is {wide} x {tall} pixels, the keypoints' is {size[0]:g} x {size[1]:g}: is it another "
            "video, or was it turned or cut?"
        )


def _stage(poses: NDArray[np.float64], frame_rate: float) -> tuple[NDArray[np.float64], float, float]:
    """What is in the middle of each frame (T, 3), the metres that are shown, and the height of the floor."""
    missing = np.isnan(poses)
    low, high = np.where(missing, np.inf, poses).min(axis=1), np.where(missing, -np.inf, poses).max(axis=1)
    there, times = np.isfinite(low).all(axis=1), np.arange(len(poses))
    known = (low[there] + high[there]) / 2
    middle = np.stack([np.interp(times, times[there], known[:, axis]) for axis in range(3)], axis=1)
    half = max(1, round(frame_rate / 2))
    padded = np.pad(middle, ((half, half), (0, 0)), mode="edge")
    summed = np.cumsum(np.concatenate([np.zeros((1, 3)), padded]), axis=0)
    middle = (summed[2 * half + 1 :] - summed[: -2 * half - 1]) / (2 * half + 1)
    span = 1.15 * max(2 * float(np.nanmax(np.abs(poses - middle[:, None]))), 1e-3)
    return middle, span, float(np.percentile(low[there, 1], 5))
