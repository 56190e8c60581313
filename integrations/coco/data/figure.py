"""One articulated figure: joint angles drawn at random, and its limbs painted into a picture and a mask."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Parts of a figure, as written into the mask. Left and right are the figure's own: its left is on the viewer's right.
HEAD, TORSO = 1, 2
LEFT, RIGHT = 0, 1
UPPER_ARM, FOREARM, THIGH, SHIN = (3, 4), (5, 6), (7, 8), (9, 10)
PARTS = 16
"""More than the number of parts: figure ``n`` writes ``PARTS * n + part`` into the mask."""

_RIGHT_LIMBS = (UPPER_ARM[RIGHT], FOREARM[RIGHT], THIGH[RIGHT], SHIN[RIGHT])
SHOWN_BY: tuple[tuple[int, ...], ...] = (
    *[(HEAD,)] * 5,
    *[(UPPER_ARM[side], TORSO) for side in (LEFT, RIGHT)],
    *[(UPPER_ARM[side], FOREARM[side]) for side in (LEFT, RIGHT)],
    *[(FOREARM[side],) for side in (LEFT, RIGHT)],
    *[(THIGH[side], TORSO) for side in (LEFT, RIGHT)],
    *[(THIGH[side], SHIN[side]) for side in (LEFT, RIGHT)],
    *[(SHIN[side],) for side in (LEFT, RIGHT)],
)
"""For each of COCO's 17 joints the parts it lies on: it is seen where the mask holds one of them."""

_FAR_EAR = np.deg2rad(30)
"""Beyond this turn of the head the far ear is behind it."""


@dataclass(frozen=True)
class Figure:
    """A figure before it is painted.

    Attributes:
        joints: (17, 2) in pixels, COCO's order.
        height: Of a figure that stands upright, in pixels; widths of limbs follow from it.
        hidden: Joints that the figure's own head hides.
        colours: RGB of skin, shirt, trousers, shoes and hair.
        order: Parts from back to front.
        width: Factor on the width of all limbs.
    """

    joints: Array
    height: float
    hidden: frozenset[int]
    colours: dict[str, tuple[int, int, int]]
    order: tuple[int, ...]
    width: float


def draw_figure(height: float, rng: np.random.Generator) -> Figure:
    """A figure in a random attitude, its pelvis at the origin.

    Facing the viewer, turned up to 55 degrees; leaning; arms hanging or raised, elbows bent; standing, striding or
    crouching; limbs foreshortened.

    Args:
        height: Of the upright figure, in pixels.
        rng: Random numbers.
    """
    turn = np.deg2rad(rng.uniform(-55, 55))
    up = _direction(np.clip(rng.normal(0, 0.22), -0.7, 0.7))
    across = np.array([-up[1], up[0]])  # towards the figure's left
    joints = np.zeros((17, 2))
    neck = 0.30 * up
    look = turn + rng.normal(0, 0.25)
    _place_head(joints, neck + 0.14 * _rotated(up, rng.normal(0, 0.18)), up, across, look)
    crouches, raises = rng.random() < 0.15, rng.random(2) < 0.35
    stride = rng.normal(0, 0.25)
    for side, outward in ((LEFT, 1.0), (RIGHT, -1.0)):
        shoulder = neck - 0.02 * up + outward * 0.105 * np.cos(turn) * across
        arm = rng.uniform(1.0, 3.0) if raises[side] else rng.normal(0.2, 0.35)
        bend = rng.uniform(0, 2.2) * rng.choice([1.0, 1.0, -1.0])
        upper = _rotated(-up, -outward * arm)
        fore = _rotated(upper, -outward * bend)
        elbow = shoulder + 0.165 * rng.uniform(0.75, 1) * upper
        hip = outward * 0.062 * np.cos(turn) * across
        open_ = rng.uniform(0.7, 1.4) if crouches else abs(rng.normal(0.1, 0.18)) + outward * stride
        knee_bend = -rng.uniform(0.8, 1.6) if crouches else rng.normal(0, 0.3)
        thigh = _rotated(-up, -outward * open_)
        shin = _rotated(thigh, -outward * knee_bend)
        knee = hip + 0.235 * rng.uniform(0.8, 1) * thigh
        joints[5 + side], joints[7 + side] = shoulder, elbow
        joints[9 + side] = elbow + 0.15 * rng.uniform(0.75, 1) * fore
        joints[11 + side], joints[13 + side] = hip, knee
        joints[15 + side] = knee + 0.225 * rng.uniform(0.85, 1) * shin
    far_ear = {3} if look > _FAR_EAR else {4} if look < -_FAR_EAR else set()
    return Figure(
        joints * height, height, frozenset(far_ear), _colours(rng), _back_to_front(turn, rng), rng.uniform(0.85, 1.25)
    )


def paint(figure: Figure, number: int, picture: NDArray[np.uint8], mask: NDArray[np.uint8], zoom: int) -> None:
    """Paint a figure over what is there.

    Args:
        figure: Whom.
        number: Its number, from 0, for the mask.
        picture: (zoom * H, zoom * W, 3), RGB.
        mask: (zoom * H, zoom * W): which part of which figure is seen.
        zoom: Pixels of both arrays a pixel of the final picture.
    """
    for part in figure.order:
        for start, end, width, colour in _strokes(figure, part):
            thick = max(1, round(width * figure.width * figure.height * zoom))
            ends = [_sixteenths(point, zoom) for point in (start, end)]
            # The right limbs are in the shade, the joints darker still: without such marks left and right of a figure
            # that is a few pixels wide take a model long to learn.
            tone = 0.6 if part in _RIGHT_LIMBS and colour in ("shirt", "trousers") else 1.0
            light, dark = (tuple(int(c * t) for c in figure.colours[colour]) for t in (tone, tone / 2))
            cv2.line(picture, ends[0], ends[1], dark, thick + zoom, cv2.LINE_AA, 4)
            cv2.line(picture, ends[0], ends[1], light, thick, cv2.LINE_AA, 4)
            cv2.line(mask, ends[0], ends[1], PARTS * number + part, thick, cv2.LINE_8, 4)
            if part not in (HEAD, TORSO) and colour != "shoes":
                for place in ends:
                    cv2.circle(picture, place, max(16, thick * 5), dark, -1, cv2.LINE_AA, 4)
        if part == HEAD:
            _paint_face(figure, picture, zoom)


def _place_head(joints: Array, centre: Array, up: Array, across: Array, look: float) -> None:
    sine, cosine = np.sin(look), np.cos(look)
    joints[0] = centre - 0.012 * up + 0.05 * sine * -across
    for side, outward in ((LEFT, 1.0), (RIGHT, -1.0)):
        joints[1 + side] = centre + 0.018 * up + (outward * 0.026 * cosine - 0.042 * sine) * across
        joints[3 + side] = centre + (outward * 0.046 * cosine + 0.012 * sine) * across


def _strokes(figure: Figure, part: int) -> list[tuple[Array, Array, float, str]]:
    """Start, end, width (in heights) and colour of the lines that a part is painted with."""
    at = figure.joints
    if part == HEAD:
        centre, neck = at[3:5].mean(0), at[5:7].mean(0)
        rise = 0.02 * _unit(centre - neck) * figure.height
        return [
            (neck, centre, 0.045, "skin"),
            (centre + 1.6 * rise, centre + rise, 0.13, "hair"),
            (centre - rise, centre + rise / 2, 0.115, "skin"),
        ]
    if part == TORSO:
        (left, right), (low_left, low_right) = at[5:7], at[11:13]
        middle, low = (left + right) / 2, (low_left + low_right) / 2
        inner = [(left, low_left), (right, low_right), (middle, low), (left, right)]
        return [(a, b, 0.085, "shirt") for a, b in inner] + [(low_left, low_right, 0.085, "trousers")]
    side = LEFT if part in (UPPER_ARM[LEFT], FOREARM[LEFT], THIGH[LEFT], SHIN[LEFT]) else RIGHT
    if part in UPPER_ARM:
        return [(at[5 + side], at[7 + side], 0.055, "shirt")]
    if part in FOREARM:
        return [(at[7 + side], at[9 + side], 0.042, "skin"), (at[9 + side], at[9 + side], 0.058, "skin")]
    if part in THIGH:
        return [(at[11 + side], at[13 + side], 0.078, "trousers")]
    knee, ankle = at[13 + side], at[15 + side]
    toe = ankle + 0.03 * figure.height * np.array([1.0 if side == LEFT else -1.0, 0.3])
    return [(knee, ankle, 0.058, "trousers"), (ankle, toe, 0.045, "shoes")]


def _paint_face(figure: Figure, picture: NDArray[np.uint8], zoom: int) -> None:
    for joint, size in ((0, 0.014), (1, 0.012), (2, 0.012), (3, 0.02), (4, 0.02)):
        if joint not in figure.hidden:
            colour = (30, 25, 25) if joint in (1, 2) else tuple(c * 3 // 4 for c in figure.colours["skin"])
            centre = _sixteenths(figure.joints[joint], zoom)
            radius = max(8, round(size * figure.height * zoom * 16))
            cv2.circle(picture, centre, radius, colour, -1, cv2.LINE_AA, 4)


def _sixteenths(point: Array, zoom: int) -> tuple[int, int]:
    """A place in the zoomed picture as OpenCV wants it; pixel centres are at whole numbers in the final picture."""
    x, y = np.round(((point + 0.5) * zoom - 0.5) * 16)
    return int(x), int(y)


def _back_to_front(turn: float, rng: np.random.Generator) -> tuple[int, ...]:
    """The far side first; an arm may be behind the torso."""
    far, near = (LEFT, RIGHT) if turn > 0 else (RIGHT, LEFT)
    legs = [part for side in (far, near) for part in (THIGH[side], SHIN[side])]
    arms = {side: [UPPER_ARM[side], FOREARM[side]] for side in (far, near)}
    behind = [side for side, chance in ((far, 0.4), (near, 0.1)) if rng.random() < chance]
    back = [part for side in behind for part in arms[side]]
    front = [part for side in (far, near) if side not in behind for part in arms[side]]
    return (*back, *legs, TORSO, HEAD, *front)


def _colours(rng: np.random.Generator) -> dict[str, tuple[int, int, int]]:
    tone = rng.uniform(0.35, 1.0)
    skin = tuple(int(c * tone) for c in (240, 195, 165))
    made = {name: _hue(rng.random(), rng.uniform(0.6, 1), rng.uniform(0.7, 1)) for name in ("shirt", "trousers")}
    return made | {
        "skin": (skin[0], skin[1], skin[2]),
        "shoes": _hue(rng.random(), 0.3, rng.uniform(0.1, 0.5)),
        "hair": _hue(rng.uniform(0, 0.12), 0.6, rng.uniform(0.1, 0.6)),
    }


def _hue(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = (round(255 * c) for c in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


def _direction(angle: float) -> Array:
    """Up, turned clockwise as seen, in a picture whose y points down."""
    return np.array([np.sin(angle), -np.cos(angle)])


def _rotated(vector: Array, angle: float) -> Array:
    """Turned clockwise as seen."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([cosine * vector[0] - sine * vector[1], sine * vector[0] + cosine * vector[1]])


def _unit(vector: Array) -> Array:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)
