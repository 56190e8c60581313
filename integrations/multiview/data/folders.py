"""A user's own recordings: a folder of pictures for each camera, a calibration, and labels.

A recording is a folder with

- ``calibration.yml`` (or ``cameras.yml``; ``.yaml``, ``.xml``, ``.json``, or a folder of such files): see
  ``data/calibration/file.py`` of the integration human36m;
- a folder of pictures a camera, called as the camera. Pictures of one moment have the same number: that by which
  names differ, which are alike otherwise;
- ``poses.npz``: 3D labels, see `read_poses`; and/or ``CAMERA.json`` (``.npz``) beside a camera's folder: 2D labels, see
  `read_joints`. Where a camera has 2D labels these count, and the projected 3D pose where it has none.

A folder of recordings is read as one set. A camera, or a picture of it, may be missing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cycledistill.integrations.coco.data.images import ImageStore
from cycledistill.integrations.human36m.data.calibration.file import metres_of, read_calibration
from cycledistill.integrations.human36m.data.calibration.storage import SUFFIXES
from cycledistill.integrations.human36m.data.cameras import Camera
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.multiview.plausible.body import check_size
from cycledistill.recipes.reading.numbered import PICTURES, VIDEOS, natural, picture_numbers

from .labels import Labelled, read_joints, read_poses
from .moments import Array, Moment, MultiViewSet, View, labelled_view, make_set, seen_by

_logger = logging.getLogger(__name__)

_CALIBRATIONS = ("calibration", "cameras")
_POSES = "poses.npz"
_LABELS = (".json", ".npz")
_EXAMPLE = "000031.png"


def read_folder(
    root: str | Path,
    calibration: str | Path | None = None,
    unit: str | float | None = None,
    *,
    cameras: Sequence[str] | None = None,
    least_views: int = 2,
    every: int = 1,
    checked: bool = True,
) -> MultiViewSet:
    """Read a recording, or a folder of recordings; no picture is opened yet. See this module's text for the form.

    Args:
        root: The folder.
        calibration: Of all recordings; default, the file in each.
        unit: Of the calibration's ``t`` and of the 3D labels, where the file does not say it: ``"m"``, ``"mm"``, ...
        cameras: The names of those that count; default, all that have pictures.
        least_views: Fewest views of a moment.
        every: Moments whose number is a multiple of this.
        checked: Refuse 3D labels that are no person of a possible size, as those in another unit are.

    Raises:
        LiftingDataError: No recording, no calibration or one without a camera that has pictures, no labels, or no
            moment that enough cameras see.

    Example:
        >>> len(read_folder("recordings/jump", unit="mm"))
        250
    """
    root = Path(root)
    if not root.is_dir():
        raise LiftingDataError(f"{root}: there is no such folder")
    folders = [root] if _is_recording(root) else sorted(each for each in root.iterdir() if _is_recording(each))
    if not folders:
        raise LiftingDataError(
            f"{root}: no recording: a folder with {_POSES}, or with labels (CAMERA.json) beside each camera's "
            "folder of pictures, is expected, or a folder of such folders"
        )
    moments = [
        moment for folder in folders for moment in _Recording(folder, root, calibration, unit, cameras).moments(every)
    ]
    found = make_set(moments, ImageStore(root), str(root), least_views, cameras)
    poses = [moment.pose for moment in found.moments if moment.pose is not None]
    if checked and poses:
        check_size(np.stack(poses))
    return found


def _is_recording(folder: Path) -> bool:
    """Whether there are labels in a folder: its 3D ones, or those of a camera that has a folder of pictures."""
    return folder.is_dir() and ((folder / _POSES).is_file() or any(map(_labels_of, _camera_folders(folder))))


def _camera_folders(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.is_dir() and each.name not in _CALIBRATIONS)


def _labels_of(folder: Path) -> Path | None:
    found = (folder.with_name(f"{folder.name}{suffix}") for suffix in _LABELS)
    return next((each for each in found if each.is_file()), None)


@dataclass(frozen=True)
class _Recording:
    """One recording below the root that picture names begin at."""

    folder: Path
    root: Path
    calibration: str | Path | None
    unit: str | float | None
    chosen: Sequence[str] | None

    def moments(self, every: int) -> Iterator[Moment]:
        pictures = self._pictures()
        cameras = self._cameras(pictures)
        numbers = sorted({number for own in pictures.values() for number in own})
        labels = {name: self._joints(name, list(own)) for name, own in pictures.items()}
        poses = self._poses(numbers)
        if not poses and not any(labels.values()):
            raise LiftingDataError(f"{self.folder}: no {_POSES} and no 2D labels (CAMERA.json) are of its pictures")
        for number in numbers:
            if number % every:
                continue
            views: dict[str, View] = {}
            for name, own in pictures.items():
                table = labels[name]
                label = _seen(cameras[name], poses.get(number)) if table is None else table.get(number)
                view = labelled_view(cameras[name], own[number], *label) if label and number in own else None
                if view:
                    views[name] = view
            yield Moment(f"{self.folder.name}, picture {number}", views, poses.get(number))

    def _pictures(self) -> dict[str, dict[int, str]]:
        """Camera -> number -> name below the root."""
        found: dict[str, dict[int, str]] = {}
        for folder in _camera_folders(self.folder):
            if self.chosen is not None and folder.name not in self.chosen:
                continue
            names = sorted((each.name for each in folder.iterdir() if each.suffix.lower() in PICTURES), key=natural)
            if not names:
                continue
            numbers = picture_numbers(names)
            if numbers is None:
                raise LiftingDataError(
                    f"{folder}: pictures of one moment are told by their numbers: names that are alike but for one, "
                    f"such as {_EXAMPLE}, are expected; there are {', '.join(names[:3])}"
                )
            paths = [(folder / name).relative_to(self.root).as_posix() for name in names]
            if len(set(numbers)) < len(numbers):
                raise LiftingDataError(f"{folder}: two pictures have one number, {_EXAMPLE} and 31.png for instance")
            found[folder.name] = dict(zip(numbers, paths, strict=True))
        if not found:
            videos = sorted(each.name for each in self.folder.iterdir() if each.suffix.lower() in VIDEOS)
            advice = ""
            if videos:
                stem = Path(videos[0]).stem
                advice = f"; of a video: mkdir {stem} && ffmpeg -i {videos[0]} {stem}/%06d.png"
            raise LiftingDataError(f"{self.folder}: no folder of pictures called as a camera is in it{advice}")
        return found

    def _cameras(self, pictures: dict[str, dict[int, str]]) -> dict[str, Camera]:
        path = self.calibration
        if path is None:
            places = [self.folder / f"{name}{suffix}" for name in _CALIBRATIONS for suffix in ("", *SUFFIXES)]
            path = next((place for place in places if place.exists()), None)
        if path is None:
            raise LiftingDataError(
                f"{self.folder}: no calibration: {_CALIBRATIONS[0]}.yml (or .yaml, .xml, .json) in it, or one that is "
                "given (data.calibration), is expected"
            )
        cameras = read_calibration(path, self.unit)
        lacking = [name for name in pictures if name not in cameras]
        if lacking:
            raise LiftingDataError(
                f"{path}: the calibration has no camera {', '.join(lacking)}; it has {', '.join(cameras)}: folders of "
                f"pictures in {self.folder} are called as their cameras"
            )
        return cameras

    def _joints(self, name: str, numbers: list[int]) -> dict[int, Labelled] | None:
        path = _labels_of(self.folder / name)
        if path is None:
            return None
        found = read_joints(path, numbers)
        if not set(found) & set(numbers):
            raise LiftingDataError(
                f"{path}: its labels are of pictures {min(found, default='-')} to {max(found, default='-')}, and "
                f"those of camera {name} are {min(numbers)} to {max(numbers)}: none is labelled"
            )
        return found

    def _poses(self, numbers: list[int]) -> dict[int, Array]:
        path = self.folder / _POSES
        metres = 1.0 if self.unit is None else metres_of(self.unit, str(path))
        return read_poses(path, numbers, metres) if path.is_file() else {}


def _seen(camera: Camera, pose: Array | None) -> Labelled | None:
    joints = None if pose is None else seen_by(camera, pose)
    return None if joints is None else Labelled(joints, None)
