"""What an animation shows of one frame: the 2D keypoints in their picture, and the pose from some side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cycledistill.versions import require

from ..data.skeleton import BONES, LEFT, RIGHT

require("opencv-python-headless")

import cv2  # noqa: E402

Pixels = NDArray[np.uint8]

_PAPER, _GRID, _INK = (250, 250, 250), (222, 222, 222), (60, 60, 60)
_COLOURS = {**dict.fromkeys(LEFT, (255, 140, 0)), **dict.fromkeys(RIGHT, (0, 150, 240))}
"""RGB, as in the other pictures here: left orange, right blue."""
_MIDDLE = (90, 90, 90)
_SHIFT = 4  # OpenCV takes places in sixteenths of a pixel
_TILE = 0.5
"""Metres, a side of the floor's tiles."""


@dataclass(frozen=True)
class View:
    """A side to look from, at a person who may walk about: a camera far away that goes with them.

    Attributes:
        caption: What is written over it.
        turn: Degrees around the vertical axis; 0: as the camera saw it, 90: from what is right in its picture.
        tilt: Degrees from above.
    """

    caption: str
    turn: float
    tilt: float = 12.0

    def axes(self) -> NDArray[np.float64]:
        """(3, 3): right, up and towards the viewer, in the pose's axes."""
        turn, tilt = np.radians([self.turn, self.tilt])
        right = np.array([np.cos(turn), 0.0, -np.sin(turn)])
        level = np.array([np.sin(turn), 0.0, np.cos(turn)])
        towards = np.cos(tilt) * level + np.sin(tilt) * np.array([0.0, 1.0, 0.0])
        return np.stack([right, np.cross(towards, right), towards])


def draw_view(
    pose: NDArray[np.float64], view: View, middle: NDArray[np.float64], span: float, floor: float, side: int
) -> Pixels:
    """A pose (17, 3), y up, on its floor, as a picture (side, side, 3), RGB; bones that are far lie behind near ones.

    Args:
        pose: NaN where a joint is not known.
        view: From where.
        middle: (3,), what is in the middle of the picture.
        span: Metres from its left to its right.
        floor: Height of the floor.
        side: Pixels.
    """
    picture = np.full((side, side, 3), _PAPER, np.uint8)
    axes = view.axes()

    def place(points: NDArray[np.float64]) -> NDArray[np.float64]:
        flat = (points - middle) @ axes[:2].T * (side / span)
        return np.stack([side / 2 + flat[..., 0], side / 2 - flat[..., 1]], axis=-1)

    for start, end in _tiles(middle, span, floor):
        _line(picture, place(start), place(end), _GRID, 1)
    depth = pose @ axes[2]
    order = sorted(BONES, key=lambda bone: depth[list(bone)].mean())
    _skeleton(picture, place(pose), order, max(2, side // 110))
    _caption(picture, view.caption)
    return picture


def _tiles(
    middle: NDArray[np.float64], span: float, floor: float
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The lines of the floor around a place; they stay where they are in the world as the place moves."""
    reach = np.ceil(0.5 * span / _TILE) * _TILE
    across = np.round(middle[[0, 2]] / _TILE) * _TILE
    lines = []
    for step in np.arange(-reach, reach + _TILE / 2, _TILE):
        for axis in (0, 1):
            ends = np.array([across, across])
            ends[:, axis] += step
            ends[:, 1 - axis] += [-reach, reach]
            start, end = (np.array([x, floor, z]) for x, z in ends)
            lines.append((start, end))
    return lines


def draw_keypoints(
    keypoints: NDArray[np.floating], size: tuple[float, float], height: int, width: int, picture: Pixels | None
) -> Pixels:
    """2D joints (17, 2) over their picture, or on paper where there is none: (height, width, 3), RGB.

    Args:
        keypoints: Pixels, NaN where a joint is not known.
        size: Width and height of the picture in these pixels.
        height: Of the result.
        width: The same.
        picture: (H, W, 3), RGB, of any size.
    """
    if picture is None:
        canvas = np.full((height, width, 3), _PAPER, np.uint8)
    else:
        canvas = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    places = keypoints * (np.array([width, height]) / np.array(size))
    _skeleton(canvas, places, list(BONES), max(2, height // 120))
    _caption(canvas, "2D")
    return canvas


def _skeleton(picture: Pixels, places: NDArray[np.floating], bones: list[tuple[int, int]], thick: int) -> None:
    for parent, joint in bones:
        _line(picture, places[parent], places[joint], _COLOURS.get(joint, _MIDDLE), thick)
    for x, y in places[np.isfinite(places).all(axis=-1)].clip(-1e4, 1e4) * 2**_SHIFT:
        cv2.circle(picture, (round(x), round(y)), round((thick * 0.8 + 0.5) * 2**_SHIFT), _INK, -1, cv2.LINE_AA, _SHIFT)


def _line(
    picture: Pixels,
    start: NDArray[np.floating],
    end: NDArray[np.floating],
    colour: tuple[int, int, int],
    thick: int,
) -> None:
    if np.isfinite([*start, *end]).all():
        one, other = (tuple(round(value) for value in point.clip(-1e4, 1e4) * 2**_SHIFT) for point in (start, end))
        cv2.line(picture, one, other, colour, thick, cv2.LINE_AA, _SHIFT)


def _caption(picture: Pixels, text: str) -> None:
    size = picture.shape[0] / 900
    place = (round(16 * size) + 2, round(40 * size) + 2)
    for colour, thick in ((_PAPER, 4), (_INK, 1)):
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, max(size, 0.4), colour, thick, cv2.LINE_AA)
