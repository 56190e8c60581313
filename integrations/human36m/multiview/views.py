"""Keypoints of one person from several calibrated views as 3D poses; nothing implausible passes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cycledistill.recipes.reading.rates import is_same_rate

from ..data.cameras import Camera
from ..data.clips import with_confidence
from ..data.keypoints.gaps import LEAST_CONFIDENCE, undetected
from ..data.keypoints.person import Keypoints
from ..data.keypoints.plausible import check_confidences, check_person
from ..errors import LiftingDataError
from .plausible.agreement import check_agreement
from .plausible.body import check_limbs, check_size
from .triangulation import THRESHOLD, triangulate

_logger = logging.getLogger(__name__)

LAYOUTS = {"coco": 17, "h36m": 17, "halpe26": 26}
"""Joints that are checked to be a person, and how many."""


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
        views: Keypoints by name, of the cameras' pictures (`read_keypoints`). Frames are matched by the numbers
            of their pictures where all views have them, and by place otherwise. A view may lack frames and joints.
        cameras: By the same names; those of no view are not used.
        layout: ``"coco"``, ``"h36m"`` or ``"halpe26"``, whose persons are checked in the picture and in the world;
            ``None``: other joints, any number.
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
            that see different ones; views that fit clearly better otherwise (exchanged, of other moments, sides
            exchanged); a person of an impossible size, as a wrong unit makes, or whose limbs change their lengths.

    Example:
        >>> views = {name: read_keypoints(f"{name}.json") for name in ("left", "right")}
        >>> poses_from_views(views, read_calibration("cameras.yml", unit="mm")).poses.shape
        (250, 17, 3)
    """
    _check_views(views, cameras)
    views = {name: replace(view, pixels=view.in_pixels(*cameras[name].size)) for name, view in views.items()}
    tables, frames = _side_by_side(views)
    if checked:
        for name, table in zip(views, tables, strict=True):
            _check_picture(name, table, cameras[name], layout, least_confidence)
    chosen = [cameras[name] for name in views]
    found = triangulate(
        chosen,
        tables,
        threshold=threshold,
        least_views=least_views,
        least_confidence=least_confidence,
        ransac=ransac,
    )
    if checked:
        seen = ~np.stack([undetected(table, least_confidence) for table in tables])
        check_agreement(found, list(views), chosen, tables, seen, layout)
        check_size(found.points)
        if layout is not None:
            check_limbs(found, chosen, layout)
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
    joints = {name: view.pixels.shape[1] for name, view in views.items()}
    if len(set(joints.values())) > 1:
        raise LiftingDataError(f"the views have different numbers of joints: {_listed(joints)}")
    rates = {name: view.frame_rate for name, view in views.items() if view.frame_rate}
    if rates and not is_same_rate(min(rates.values()), max(rates.values())):
        raise LiftingDataError(f"the views have different numbers of frames a second: {_listed(rates)}")


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def _side_by_side(views: Mapping[str, Keypoints]) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """The views as one table (V, T, J, 3), NaN in frames that a view has not, and the frames' numbers."""
    tables = [with_confidence(view.pixels) if view.pixels.shape[2] == 2 else view.pixels for view in views.values()]
    alike = len({view.first for view in views.values()}) == 1  # else some count a video's pictures from 1
    numbers = [view.frames - (0 if alike else view.first) for view in views.values() if view.frames is not None]
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
    if layout not in LAYOUTS:
        raise LiftingDataError(f"layout={layout!r}: one of {', '.join(map(repr, LAYOUTS))}, or None, is expected")
    if table.shape[1] != LAYOUTS[layout]:
        raise LiftingDataError(
            f"view {name}: {table.shape[1]} joints, where the layout {layout!r} has {LAYOUTS[layout]}; another "
            "skeleton: layout=None"
        )
    check_person(table, ~missing, camera.size, layout, f"view {name}")
