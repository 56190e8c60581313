"""Whether several views would fit each other better if something were otherwise, by the planes that their rays share.

The rays of two cameras to one point lie in a plane with the line between the cameras. How far they are off it needs no
3D point, and so tells what triangulation hides: two views of other moments meet somewhere, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ...data.cameras import Camera

Array = NDArray[np.float64]

MOST_SHIFT = 30
"""Frames that one view may be looked for before or after the others."""
_SAMPLED = 200
_LEAST_OFF = 0.25
"""Pixels: what is off by less has no fault that could be seen."""
_MOST_OFF = 20.0
"""Pixels: what is off by more is no fit, however bad things are as they are."""
_BETTER, _BETTER_OF_FEW = 0.2, 5.0
"""By which share views must fit better; of few pairs of rays, the second divided by the root of their number."""
_SAME_PLACE = 1e-4
"""Of their distance from the origin: cameras that are nearer to each other are in one place. R and t that are taken for
another convention's make that of a ring of cameras."""
_LEAST_SINE = np.sin(np.deg2rad(2.0))
"""Rays that run along the line between two cameras share a plane with any other."""


@dataclass(frozen=True)
class BetterFit:
    """What would make views fit.

    Attributes:
        words: It, for messages: "... once left and right are exchanged".
        off: Pixels (median) between rays and planes as things are.
        then: The same, if it were so.
        shift: Frames, where a view is of other moments.
    """

    words: str
    off: float
    then: float
    shift: int = 0


def better_fit(
    names: Sequence[str],
    cameras: Sequence[Camera],
    pixels: Array,
    mirrored: Sequence[int] | None,
) -> BetterFit | None:
    """The change that makes views fit best, of those that make them fit clearly better.

    Tried are: R and t of another convention, two views exchanged, left and right joints of one view exchanged, and one
    view some frames before or after the others.

    Args:
        names: Of the V views.
        cameras: Theirs.
        pixels: (V, T, J, 2), NaN where a joint was not found.
        mirrored: The joint on the other side of the body, for each joint; ``None``: not known.

    Source: Hartley and Zisserman, "Multiple View Geometry", chapter 9 (the epipolar constraint).
    """
    given = _Views(list(cameras), pixels, _sample(pixels.shape[1]))
    best: BetterFit | None = None
    for words, other, concerned, shift in _changes(names, given, mirrored):
        pairs = [pair for pair in combinations(range(len(names)), 2) if concerned & set(pair)]
        before, now = given.off(pairs), other.off(pairs)
        both = ~np.isnan(before) & ~np.isnan(now)  # a change must not win by what it makes impossible
        if both.sum() < max(8, 0.4 * (~np.isnan(before)).sum()):
            continue
        off, then = float(np.median(before[both])), float(np.median(now[both]))
        needed = max(_BETTER, _BETTER_OF_FEW / np.sqrt(both.sum()))
        better = then < _MOST_OFF and off > _LEAST_OFF and then < (1 - needed) * off
        if better and (best is None or then / off < best.then / best.off):
            best = BetterFit(words, off, then, shift)
    return best


class _Views:
    """Rays of V views in the world, (V, T, J, 3), in some of their frames."""

    def __init__(self, cameras: list[Camera], pixels: Array, frames: NDArray[np.int64], rays: Array | None = None):
        self.cameras, self.pixels, self.frames = cameras, pixels, frames
        if rays is None:
            rays = np.stack([_rays(camera, each) for camera, each in zip(cameras, pixels, strict=True)])
        self.rays = rays
        self._known: dict[tuple[int, int], Array] = {}

    def off(self, pairs: Sequence[tuple[int, int]]) -> Array:
        """Pixels between rays and the other view's planes, (pairs, frames, J); NaN where one is missing."""
        for pair in pairs:
            if pair not in self._known:
                self._known[pair] = self._off(*pair)
        return np.stack([self._known[pair] for pair in pairs])

    def _off(self, one: int, other: int) -> Array:
        places = self.cameras[one].position, self.cameras[other].position
        first, second = self.rays[one][self.frames], self.rays[other][self.frames]
        base = places[1] - places[0]
        length = float(np.linalg.norm(base))
        if length <= _SAME_PLACE * max(float(np.linalg.norm(place)) for place in places):  # all planes hold both rays
            return np.where(np.isnan(first + second).any(axis=-1), np.nan, np.inf)
        x, y, z = base / length
        across = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])  # @ a: the base's cross product with a
        one_along, other_along = first @ [x, y, z], second @ [x, y, z]
        sines = 1 - one_along**2, 1 - other_along**2  # squares of them
        least = np.minimum(*sines)
        scale = np.sqrt(np.where(least < _LEAST_SINE**2, np.nan, sines[0] + sines[1]))
        off = np.abs((first * (second @ across.T)).sum(axis=-1)) / scale  # Sampson's: a pixel counts alike everywhere
        off *= np.mean([self.cameras[one].focal, self.cameras[other].focal])
        together = (first * second).sum(axis=-1)
        ahead = (one_along > together * other_along) & (together * one_along > other_along)
        return np.asarray(np.where(ahead | (1 - together**2 < _LEAST_SINE**2) | np.isnan(off), off, np.inf))

    def with_rays(self, view: int, rays: Array) -> _Views:
        changed = self.rays.copy()
        changed[view] = rays
        return _Views(self.cameras, self.pixels, self.frames, changed)


def _changes(
    names: Sequence[str], given: _Views, mirrored: Sequence[int] | None
) -> Iterator[tuple[str, _Views, set[int], int]]:
    """Each change: in words, the views as they would be, whom it concerns, and frames."""
    everyone = set(range(len(names)))
    turned = [
        replace(each, rotation=each.rotation.T, position=-each.rotation.T @ each.position) for each in given.cameras
    ]
    yield (
        "with R and t taken for the cameras' rotation and position in the world; OpenCV's are expected, R.T and "
        "-R.T @ position of those",
        _Views(turned, given.pixels, given.frames),
        everyone,
        0,
    )
    for one, other in list(combinations(range(len(names)), 2))[:10]:
        order = list(range(len(names)))
        order[one], order[other] = other, one
        exchanged = _Views(given.cameras, given.pixels[order], given.frames)
        yield f"once {names[one]} and {names[other]} are exchanged", exchanged, {one, other}, 0
    for view, name in enumerate(names):
        rays = given.rays[view]
        if mirrored is not None:
            sides = given.with_rays(view, rays[:, list(mirrored)])
            yield f"once left and right joints of view {name} are exchanged", sides, {view}, 0
        most = min(MOST_SHIFT, len(rays) // 3)
        for shift in (*range(-most, 0), *range(1, most + 1)):
            moved = np.full_like(rays, np.nan)
            moved[max(shift, 0) : len(rays) + min(shift, 0)] = rays[max(-shift, 0) : len(rays) - max(shift, 0)]
            words = f"once view {name} is {abs(shift)} frames {'later' if shift > 0 else 'earlier'}"
            yield words, given.with_rays(view, moved), {view}, shift


def _rays(camera: Camera, pixels: Array) -> Array:
    plane = camera.undistort(pixels.reshape(-1, 2)).reshape(pixels.shape)
    local = np.concatenate([plane, np.ones((*plane.shape[:-1], 1))], axis=-1) @ camera.rotation.T
    return np.asarray(local / np.linalg.norm(local, axis=-1, keepdims=True))


def _sample(length: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, length - 1, num=min(length, _SAMPLED)).astype(np.int64))
