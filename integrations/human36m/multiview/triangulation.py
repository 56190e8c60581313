"""Points in the world from where several calibrated cameras see them: the direct linear transform, and RANSAC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ..data.cameras import Camera
from ..data.keypoints.gaps import LEAST_CONFIDENCE
from ..errors import LiftingDataError

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

THRESHOLD = 20.0
"""Pixels that a view may be off: detectors are, by some five, in pictures of 1000 to 2000."""
_LEAST_ANGLE = np.deg2rad(2.0)
"""Rays closer to each other than this hardly tell how far away they meet: a pixel is then decimetres."""
_MOST_PAIRS = 60
_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class Triangulated:
    """Points from several views.

    Attributes:
        points: (..., 3), in the cameras' world; NaN where there is none.
        error: (...,), mean distance in pixels between a point as the used views' cameras see it, and where it was
            found; NaN without a point.
        used: (V, ...), which views a point is made from; of the others it was not found, or they disagree.
    """

    points: Array
    error: Array
    used: Flags


def triangulate(
    cameras: Sequence[Camera],
    keypoints: NDArray[np.floating],
    *,
    threshold: float = THRESHOLD,
    least_views: int = 2,
    least_confidence: float = LEAST_CONFIDENCE,
    ransac: bool = True,
) -> Triangulated:
    """Where points are that several cameras see.

    Each view gives two linear equations of a point, weighted by its confidence and, in a second solution, divided by
    the point's depth in it, so that they count pixels. With ``ransac``, each pair of views (of many cameras, sixty
    pairs that are drawn) proposes a point, the proposal whose views agree best is taken, and views that are further off
    than the threshold are left out.

    Args:
        cameras: V of them.
        keypoints: (V, ..., 2) pixels of the cameras' pictures, or (V, ..., 3) with a confidence. Not found: NaN,
            x = y = 0, or hardly any confidence.
        threshold: Pixels; views that are further off are not used.
        least_views: A point is made from so many views or more.
        least_confidence: Below it a keypoint was not found.
        ransac: Whether views may be left out. If not, all that found it count, however far off.

    Returns:
        Points, errors and used views. There is no point where fewer than ``least_views`` agree, where the used cameras
        are all in nearly one direction, or where it would be behind one.

    Raises:
        LiftingDataError: Fewer than two cameras, keypoints of another shape or number of views, or settings out of
            their range.

    Example:
        >>> found = triangulate(cameras, np.stack([camera.project(camera.to_camera(world)) for camera in cameras]))
        >>> bool(np.abs(found.points - world).max() < 1e-6)
        True

    Source: Hartley and Sturm, "Triangulation", CVIU 1997 (Linear-LS, and its iterated weights); Fischler and Bolles,
    "Random sample consensus", CACM 1981, with the truncated costs of MSAC (Torr and Zisserman, CVIU 2000).
    """
    _check(cameras, keypoints, threshold, least_views)
    pixels = keypoints[..., :2].astype(np.float64).reshape(len(cameras), -1, 2)
    weights = np.ones(pixels.shape[:2])
    if keypoints.shape[-1] == 3:
        weights = keypoints[..., 2].astype(np.float64).reshape(weights.shape)
    parts = [
        _Scene(cameras, pixels[:, start : start + _AT_ONCE], weights[:, start : start + _AT_ONCE], least_confidence)
        for start in range(0, max(pixels.shape[1], 1), _AT_ONCE)
    ]
    found = [part.solve(threshold, least_views, ransac) for part in parts]
    shape = keypoints.shape[1:-1]
    return Triangulated(
        np.concatenate([each.points for each in found]).reshape(*shape, 3),
        np.concatenate([each.error for each in found]).reshape(shape),
        np.concatenate([each.used for each in found], axis=1).reshape(len(cameras), *shape),
    )


class _Scene:
    """N points as V cameras see them."""

    def __init__(self, cameras: Sequence[Camera], pixels: Array, weights: Array, least: float) -> None:
        self.cameras, self.pixels = cameras, pixels
        self.middle = np.mean([camera.position for camera in cameras], axis=0)  # numbers near 0 wherever the world's is
        plane = np.stack([camera.undistort(each) for camera, each in zip(cameras, pixels, strict=True)])
        there = np.isfinite(pixels).all(axis=-1) & pixels.any(axis=-1) & np.isfinite(plane).all(axis=-1)
        self.seen: Flags = there & np.isfinite(weights) & (weights >= least)
        self.weights = np.where(self.seen, np.maximum(np.nan_to_num(weights), 1e-6), 0)
        plane = np.where(self.seen[..., None], plane, 0)
        self.rows, self.sides = np.empty((*plane.shape, 3)), np.empty(plane.shape)
        for view, camera in enumerate(cameras):
            turn = camera.rotation.T
            moved = turn @ (self.middle - camera.position)
            focal = camera.focal[:, None]
            self.rows[view] = focal * (turn[:2] - plane[view, :, :, None] * turn[2])
            self.sides[view] = camera.focal * (plane[view] * moved[2] - moved[:2])

    def solve(self, threshold: float, least_views: int, ransac: bool) -> Triangulated:
        used = self._agreeing(threshold) if ransac else self.seen
        points = self._points(used)
        off, ahead = self._off(points)
        if ransac:  # views that the better point agrees with, too
            used = self.seen & (off <= threshold)
            points = self._points(used)
            off, ahead = self._off(points)
            used = used & (off <= threshold)
        good = (used.sum(axis=0) >= least_views) & (ahead | ~used).all(axis=0) & self._apart(points, used)
        used = used & good
        error = np.where(used, off, 0).sum(axis=0) / np.maximum(used.sum(axis=0), 1)
        return Triangulated(np.where(good[:, None], points, np.nan), np.where(good, error, np.nan), used)

    def _points(self, used: Flags) -> Array:
        """Least squares of the used views' equations, (N, 3); NaN where they tell no point."""
        weights = self.weights * used
        points = self._least_squares(weights)
        depths = np.stack([camera.to_camera(points)[:, 2] for camera in self.cameras])
        near = weights / np.where(np.abs(depths) > 1e-6, depths, np.inf) ** 2
        return self._least_squares(np.nan_to_num(near))

    def _least_squares(self, weights: Array, views: list[int] | None = None) -> Array:
        chosen = slice(None) if views is None else views  # those of the others weigh nothing
        count, equations = weights.shape[1], 2 * len(weights[chosen])
        rows = self.rows[chosen].transpose(1, 0, 2, 3).reshape(count, equations, 3)
        sides = self.sides[chosen].transpose(1, 0, 2).reshape(count, equations, 1)
        weighted = (rows * np.repeat(weights[chosen].T, 2, axis=1)[..., None]).transpose(0, 2, 1)
        normal, side = weighted @ rows, (weighted @ sides)[..., 0]
        scale = np.trace(normal, axis1=1, axis2=2)
        known = scale > 0
        known[known] = np.linalg.eigvalsh(normal[known])[:, 0] > 1e-12 * scale[known]
        points = np.full(side.shape, np.nan)
        points[known] = np.linalg.solve(normal[known], side[known][..., None])[..., 0]
        return points + self.middle

    def _off(self, points: Array) -> tuple[Array, Flags]:
        """Pixels between points and what each view saw, (V, N), infinite where it saw nothing; and what is ahead."""
        off, ahead = np.full(self.seen.shape, np.inf), np.zeros(self.seen.shape, dtype=np.bool_)
        for view, camera in enumerate(self.cameras):
            local = camera.to_camera(points)
            ahead[view] = local[:, 2] > 0  # nan is not
            asked = ahead[view] & self.seen[view]
            off[view, asked] = np.linalg.norm(camera.project(local[asked]) - self.pixels[view, asked], axis=-1)
        return off, ahead

    def _agreeing(self, threshold: float) -> Flags:
        """The views that agree with the best pair's proposal, (V, N)."""
        best, used = np.full(self.seen.shape[1], np.inf), np.zeros_like(self.seen)
        for pair in _pairs(len(self.cameras)):
            chosen = np.zeros_like(self.seen)
            chosen[list(pair)] = self.seen[list(pair)].all(axis=0)
            off, _ = self._off(self._least_squares(self.weights * chosen, list(pair)))
            near = off <= threshold
            cost = (self.weights * np.minimum(off, threshold) ** 2).sum(axis=0)
            better = (cost < best) & (near & chosen).any(axis=0)
            best[better], used[:, better] = cost[better], near[:, better]
        return used

    def _apart(self, points: Array, used: Flags) -> Flags:
        """Whether two of the used rays meet at an angle, (N,)."""
        rays = points - np.stack([camera.position for camera in self.cameras])[:, None]
        rays /= np.maximum(np.linalg.norm(rays, axis=-1, keepdims=True), 1e-12)
        wide = np.zeros(len(points), dtype=np.bool_)
        for one, other in combinations(range(len(rays)), 2):
            across = np.linalg.norm(np.cross(rays[one], rays[other]), axis=-1)
            wide |= used[one] & used[other] & (across >= np.sin(_LEAST_ANGLE))
        return wide


def _pairs(views: int) -> list[tuple[int, int]]:
    pairs = list(combinations(range(views), 2))
    if len(pairs) <= _MOST_PAIRS:
        return pairs
    drawn = np.random.default_rng(0).permutation(len(pairs))[:_MOST_PAIRS]
    return [pairs[number] for number in drawn]


def _check(cameras: Sequence[Camera], keypoints: NDArray[np.floating], threshold: float, least_views: int) -> None:
    if len(cameras) < 2:
        raise LiftingDataError(f"{len(cameras)} cameras: two or more are needed to tell where a point is")
    shape = np.shape(keypoints)
    if len(shape) < 2 or shape[0] != len(cameras) or shape[-1] not in (2, 3):
        raise LiftingDataError(
            f"keypoints of shape {shape} for {len(cameras)} cameras: (V, ..., 2 or 3), the views first, is expected"
        )
    if not threshold > 0:
        raise LiftingDataError(f"threshold={threshold}: pixels, above 0, are expected")
    if isinstance(least_views, bool) or not isinstance(least_views, int) or least_views < 2:
        raise LiftingDataError(f"least_views={least_views!r}: a whole number from 2 is expected")
