"""Keypoints of one person from several calibrated views as 3D poses; nothing implausible passes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ..data.cameras import Camera
from ..data.clips import with_confidence
from ..data.keypoints.gaps import LEAST_CONFIDENCE, undetected
from ..data.keypoints.person import Keypoints
from ..data.keypoints.plausible import check_confidences, check_person
from ..errors import LiftingDataError
from .triangulation import THRESHOLD, Triangulated, triangulate

_logger = logging.getLogger(__name__)

LAYOUTS = ("coco", "h36m")
_TALLEST, _SMALLEST = 3.0, 0.3
_MOSTLY, _HARDLY = 0.5, 0.2
"""Shares of the joints found in two views that must become points, and of a view's that are used, or it is told of."""
_ROUGH = 5.0
"""Pixels: detectors are off by less, and views that are exchanged by hardly more where cameras stand in a ring."""
_TRIED = 30
_QUESTION = (
    "are the views of one person and of the same moments, R and t OpenCV's, K of pictures of this size, and the "
    "distortion of this model (a fisheye's is of another)?"
)


@dataclass(frozen=True)
class ViewPoses:
    """3D poses from several views.

    Attributes:
        poses: (T, J, 3), metres in the calibration's world; NaN where a joint is not known.
        error: (T, J), pixels, see `Triangulated`.
        used: (T, J, V), the views that a joint is made from.
        views: Their names.
        frames: (T,), numbers of the pictures, where all files have them.
    """

    poses: NDArray[np.float32]
    error: NDArray[np.float32]
    used: NDArray[np.bool_]
    views: tuple[str, ...]
    frames: NDArray[np.int64] | None


def poses_from_views(
    views: Mapping[str, Keypoints],
    cameras: Mapping[str, Camera],
    *,
    layout: str | None = "coco",
    threshold: float = THRESHOLD,
    least_views: int = 2,
    least_confidence: float = LEAST_CONFIDENCE,
    ransac: bool = True,
    checked: bool = True,
) -> ViewPoses:
    """3D poses of one person whom several cameras film at once. Which person is the same in two views is not found out.

    Args:
        views: Keypoints by name, pixels of the cameras' pictures (`read_keypoints`). Frames are matched by the numbers
            of their pictures where all views have them, and by place otherwise. A view may lack frames and joints.
        cameras: By the same names; those of no view are not used.
        layout: ``"coco"`` or ``"h36m"``, whose persons are checked in the picture; ``None``: other joints, any number.
        threshold: See :func:`triangulate`, as the next three.
        least_views: The same.
        least_confidence: The same.
        ransac: The same.
        checked: Refuse what cannot be a person, in the pictures and in the world.

    Returns:
        The poses, in the joints of the views.

    Raises:
        LiftingDataError: Fewer than two views; a view without a camera, of another picture size than its camera's, or
            of another length, frame rate or number of joints than the others; cameras that do not see the person, or
            that see different ones; a person of an impossible size, as a wrong unit makes.

    Example:
        >>> views = {name: read_keypoints(f"{name}.json") for name in ("left", "right")}
        >>> poses_from_views(views, read_calibration("cameras.yml", unit="mm")).poses.shape
        (250, 17, 3)
    """
    _check_views(views, cameras)
    tables, frames = _side_by_side(views)
    if checked:
        for name, table in zip(views, tables, strict=True):
            _check_picture(name, table, cameras[name], layout, least_confidence)
    chosen = [cameras[name] for name in views]
    solve = partial(triangulate, threshold=threshold, least_views=least_views, least_confidence=least_confidence)
    found = solve(chosen, tables, ransac=ransac)
    if checked:
        seen = ~np.stack([undetected(table, least_confidence) for table in tables])
        _check_agreement(found, seen, list(views), chosen, tables, solve)
        check_size(found.points)
    return ViewPoses(
        found.points.astype(np.float32),
        found.error.astype(np.float32),
        np.moveaxis(found.used, 0, -1),
        tuple(views),
        frames,
    )


def _check_views(views: Mapping[str, Keypoints], cameras: Mapping[str, Camera]) -> None:
    unknown = [name for name in views if name not in cameras]
    if unknown:
        raise LiftingDataError(
            f"the calibration has no camera {', '.join(unknown)}; it has {', '.join(cameras)}: views are called as "
            "their cameras"
        )
    if len(views) < 2:
        raise LiftingDataError(f"{len(views)} views ({', '.join(views)}): two or more are needed for 3D")
    for name, view in views.items():
        size = cameras[name].size
        if view.pixels.ndim != 3 or view.pixels.shape[2] not in (2, 3) or not view.pixels.size:
            raise LiftingDataError(f"view {name}: keypoints of shape {view.pixels.shape}: (T, J, 2 or 3) is expected")
        for own, side, what in ((view.width, size[0], "wide"), (view.height, size[1], "high")):
            if own and abs(own - side) > 0.5:
                raise LiftingDataError(
                    f"view {name}: its pictures are {own:g} pixels {what}, and its camera was calibrated on those "
                    f"of {size[0]} x {size[1]}: bring the keypoints or K to one size"
                )
    for what, values in (
        ("joints", {name: view.pixels.shape[1] for name, view in views.items()}),
        ("frames a second", {name: view.frame_rate for name, view in views.items() if view.frame_rate}),
    ):
        if len(set(values.values())) > 1:
            told = ", ".join(f"{name} {value:g}" for name, value in values.items())
            raise LiftingDataError(f"the views have different numbers of {what}: {told}")


def _side_by_side(views: Mapping[str, Keypoints]) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """The views as one table (V, T, J, 3), NaN in frames that a view has not, and the frames' numbers."""
    tables = [with_confidence(view.pixels) if view.pixels.shape[2] == 2 else view.pixels for view in views.values()]
    numbers = [view.frames for view in views.values() if view.frames is not None]
    if len(numbers) < len(views):
        lengths = {name: len(view.pixels) for name, view in views.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise LiftingDataError(
                f"the views have different numbers of frames: {told}; which are of one moment is known from the "
                "numbers of their pictures alone (image_id, or first_frame beside keypoints), which not all have"
            )
        return np.stack(tables), None
    frames = np.unique(np.concatenate(numbers))
    together = np.full((len(tables), len(frames), *tables[0].shape[1:]), np.nan, np.float32)
    for place, (own, table) in enumerate(zip(numbers, tables, strict=True)):
        together[place, np.searchsorted(frames, own)] = table
    return together, frames


def _check_picture(
    name: str, table: NDArray[np.float32], camera: Camera, layout: str | None, least_confidence: float
) -> None:
    missing = undetected(table, least_confidence)
    if missing.all():
        _logger.warning("view %s: nobody was found in it, so it is of no use", name)
        return
    check_confidences(table[~missing][:, 2], f"view {name}")
    if layout is None:
        return
    if table.shape[1] != 17:
        raise LiftingDataError(
            f"view {name}: {table.shape[1]} joints, where the layout {layout!r} has 17; another skeleton: layout=None"
        )
    check_person(table, ~missing, camera.size, layout, f"view {name}")


def _check_agreement(
    found: Triangulated,
    seen: NDArray[np.bool_],
    names: list[str],
    cameras: list[Camera],
    tables: NDArray[np.float32],
    solve: Callable[..., Triangulated],
) -> None:
    several = seen.sum(axis=0) >= 2
    if not several.any():
        raise LiftingDataError(
            f"no joint is found in two of the views {', '.join(names)} in one frame: are they of the same moments?"
        )
    share, off = _agreement(found, several)
    if share < _MOSTLY or off > _ROUGH:
        some = np.linspace(0, tables.shape[1] - 1, num=min(_TRIED, tables.shape[1])).astype(int)
        guess = _guess(names, cameras, tables[:, some], solve, lambda other: _agreement(other, several[some]), off)
        told = (
            f"only {100 * share:.0f} % of the joints that two or more of the views {', '.join(names)} see are where "
            "rays of their cameras meet, to the threshold in pixels"
            if share < _MOSTLY
            else f"the rays of the views {', '.join(names)} miss each other by {off:.1f} pixels (median)"
        )
        if guess or share < _MOSTLY:
            raise LiftingDataError(f"{told}: {guess or _QUESTION}")
        _logger.warning("%s, more than detectors are off: is the calibration a good one, and of these pictures?", told)
    for name, used, own in zip(names, found.used, seen & several, strict=True):
        if own.any() and used[own].mean() < _HARDLY:
            _logger.warning(
                "view %s agrees with the others on %.0f %% of the joints it sees, and is left out of the rest: is its "
                "calibration or file another's, or another person in it?",
                name,
                100 * used[own].mean(),
            )


def _agreement(found: Triangulated, several: NDArray[np.bool_]) -> tuple[float, float]:
    """Which share of the joints that several views see became points, and their median error in pixels."""
    known = np.isfinite(found.error) & several
    if not known.any():
        return 0.0, float("inf")
    return float(known.sum() / several.sum()), float(np.median(found.error[known]))


def _guess(
    names: list[str],
    cameras: list[Camera],
    tables: NDArray[np.float32],
    solve: Callable[..., Triangulated],
    agreement: Callable[[Triangulated], tuple[float, float]],
    off: float,
) -> str:
    """What would make the views agree, in words; empty where nothing is found."""

    def better(cameras: list[Camera], tables: NDArray[np.float32]) -> bool:
        share, other = agreement(solve(cameras, tables))
        return share > 0.8 and other < off / 2

    turned = [replace(each, rotation=each.rotation.T, position=-each.rotation.T @ each.position) for each in cameras]
    if better(turned, tables):
        return (
            "they meet with R and t taken for the cameras' rotation and position in the world; OpenCV's are expected, "
            "R.T and -R.T @ position of those"
        )
    for one, other in list(combinations(range(len(names)), 2))[:10]:
        order = list(range(len(names)))
        order[one], order[other] = other, one
        if better(cameras, tables[order]):
            return f"they meet once {names[one]} and {names[other]} are exchanged"
    return ""


def check_size(points: NDArray[np.float64]) -> None:
    """Refuse persons who are too large or too small: their poses are in another unit than metres.

    Args:
        points: (T, J, 3), NaN where a joint is not known.

    Raises:
        LiftingDataError: They are; with the unit that it looks like.
    """
    known = np.isfinite(points[..., 0])
    whole = points[known.mean(axis=1) > 0.5]
    if not len(whole):
        return
    size = float(np.median((np.nanmax(whole, axis=1) - np.nanmin(whole, axis=1)).max(axis=-1)))
    if _SMALLEST <= size <= _TALLEST:
        return
    guesses = [unit for unit, factor in (("mm", 0.001), ("cm", 0.01)) if _SMALLEST <= size * factor <= _TALLEST]
    guess = f" It looks like {guesses[0]}." if guesses else ""
    raise LiftingDataError(
        f"the person is {size:.3g} m large: the calibration's t is in another unit.{guess} Give the unit (--unit mm, "
        "cm, or the metres of one, such as 0.025 for squares of a board of 25 mm)"
    )
