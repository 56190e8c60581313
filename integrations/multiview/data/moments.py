"""What several calibrated cameras see of one person at one moment, and sets of such moments."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cycledistill.integrations.human36m.data.cameras import Camera
from cycledistill.integrations.human36m.errors import LiftingDataError

_logger = logging.getLogger(__name__)

Array = NDArray[np.float64]
Box = tuple[float, float, float, float]
"""x, y, width and height in pixels of a picture."""


class Pictures(Protocol):
    """Whatever gives pictures by name: RGB bytes (H, W, 3)."""

    def read(self, name: str) -> NDArray[np.uint8]: ...  # noqa: D102


@dataclass(frozen=True)
class View:
    """A camera's picture of a moment, and the person in it.

    Attributes:
        camera: Who looks.
        picture: What `Pictures.read` calls the picture.
        joints: (J, 3), x and y in pixels of the picture, and 1 where the joint is labelled, else 0.
        box: Around the person.
    """

    camera: Camera
    picture: str
    joints: Array
    box: Box


@dataclass(frozen=True)
class Moment:
    """What the cameras that have a picture of a moment see. A camera may be missing.

    Attributes:
        name: For messages.
        views: By the cameras' names, in one order in all moments of a set.
        pose: (J, 3), metres in the cameras' world, NaN where it is not known; ``None`` without 3D labels.
    """

    name: str
    views: Mapping[str, View]
    pose: Array | None = None


@dataclass(frozen=True)
class MultiViewSet:
    """Moments, and where their pictures come from."""

    moments: Sequence[Moment]
    pictures: Pictures

    def __len__(self) -> int:
        """Moments."""
        return len(self.moments)

    @property
    def joints(self) -> int:
        """How many joints a person has."""
        return len(next(iter(self.moments[0].views.values())).joints)

    def read(self, view: View) -> NDArray[np.uint8]:
        """A view's picture.

        Raises:
            DataError: It is missing or broken.
            LiftingDataError: It is of another size than the camera was calibrated on.
        """
        pixels = self.pictures.read(view.picture)
        check_picture_size(view.camera, (pixels.shape[1], pixels.shape[0]), view.picture)
        return pixels


def check_picture_size(camera: Camera, size: tuple[int, int], what: str) -> None:
    """Refuse a picture of another size than its camera was calibrated on.

    Raises:
        LiftingDataError: So it is.
    """
    if size != camera.size:
        raise LiftingDataError(
            f"{what} is {size[0]} x {size[1]} pixels, and camera {camera.name} was calibrated on pictures of "
            f"{camera.size[0]} x {camera.size[1]}: calibrate anew, or bring the pictures or K (its first two rows) to "
            "one size"
        )


def make_set(
    moments: Iterable[Moment], pictures: Pictures, what: str, least_views: int = 2, cameras: Sequence[str] | None = None
) -> MultiViewSet:
    """A set of those moments that enough cameras see; how many are left out, and are seen by some only, is logged.

    Args:
        moments: All there are.
        pictures: Where their pictures come from.
        what: The set is, for messages.
        least_views: Fewest views of a moment.
        cameras: The names of those that count; default, all.

    Raises:
        LiftingDataError: No moment is left, an unknown camera, or persons of different numbers of joints.
    """
    every = list(moments)
    names = {name for moment in every for name in moment.views}
    unknown = [name for name in cameras or () if name not in names]
    if unknown:
        raise LiftingDataError(f"{what}: there is no view {', '.join(unknown)}; there are {', '.join(sorted(names))}")
    chosen = names if cameras is None else set(cameras)
    kept = [
        Moment(moment.name, {name: view for name, view in moment.views.items() if name in chosen}, moment.pose)
        for moment in every
    ]
    found = [moment for moment in kept if len(moment.views) >= least_views]
    if not found:
        most = max((len(moment.views) for moment in kept), default=0)
        raise LiftingDataError(
            f"{what}: none of {len(every)} moments has {least_views} views with a labelled person (at most {most}): "
            "are the pictures of all cameras numbered alike and the labels of these pictures, and do the cameras see "
            "the person (R and t)?"
        )
    if len(found) < len(every):
        _logger.warning(
            "%s: %d of %d moments have fewer than %d views and are left out",
            what, len(every) - len(found), len(every), least_views,
        )  # fmt: skip
    fewer = sum(len(moment.views) < len(chosen) for moment in found)
    if fewer:
        _logger.info("%s: %d of %d moments lack a view, and go without it", what, fewer, len(found))
    counts = {len(view.joints) for moment in found for view in moment.views.values()}
    counts |= {len(moment.pose) for moment in found if moment.pose is not None}
    if len(counts) > 1:
        raise LiftingDataError(
            f"{what}: persons of {', '.join(map(str, sorted(counts)))} joints; one number is expected"
        )
    return MultiViewSet(found, pictures)


def labelled_view(camera: Camera, picture: str, joints: Array, box: Sequence[float] | None = None) -> View | None:
    """A view with the box around its labelled joints where none is given; ``None`` where nobody is labelled in it."""
    known = joints[joints[:, 2] > 0, :2]
    if not len(known):
        return None
    if box is None:
        low, side = known.min(axis=0), np.maximum(np.ptp(known, axis=0), 1)
        box = (*low.tolist(), *side.tolist())
    return View(camera, picture, joints, tuple(float(side) for side in box))  # type: ignore[arg-type]


def seen_by(camera: Camera, pose: Array) -> Array | None:
    """The joints (J, 3) of a pose (J, 3) as a camera sees them, those outside of its picture not labelled.

    ``None`` where the person is not in front of the camera or wholly outside of its picture.
    """
    known = np.isfinite(pose).all(axis=1)
    local = camera.to_camera(pose[known])
    if not len(local) or (local[:, 2] <= 0).any():
        return None
    joints = np.zeros((len(pose), 3))
    pixels = camera.project(local)
    inside = np.all((pixels >= 0) & (pixels <= np.array(camera.size) - 1), axis=1)
    joints[known] = np.concatenate([pixels, inside[:, None]], axis=1)
    return joints if inside.any() else None
