"""Human3.6M's pictures with annotations in JSON, as 3DMPPE's and its successors' preprocessing writes them.

The root holds ``images/s_01_act_02_subact_01_ca_01/..._000001.jpg`` (or ``images.zip``) and ``annotations``, for each
subject ``Human36M_subject1_data.json`` (COCO's pictures and boxes), ``Human36M_subject1_camera.json`` (R, t, f and c)
and ``Human36M_subject1_joint_3d.json`` (millimetres in the world). Cameras have no distortion there; 2D joints are the
projected 3D ones.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cycledistill.integrations.coco.data.images import ImageStore
from cycledistill.integrations.human36m.data.calibration.checks import finite_numbers
from cycledistill.integrations.human36m.data.cameras import Camera
from cycledistill.integrations.human36m.data.skeleton import JOINTS
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.recipes.reading.texts import read_json

from .moments import Array, Moment, MultiViewSet, View, labelled_view, make_set, seen_by

_logger = logging.getLogger(__name__)

_KINDS = ("data", "camera", "joint_3d")
_TRIED = 50
_MARGIN, _FITTING = 30.0, 0.9
"""Pixels that joints may be outside of a box, and the share of the persons that must be in theirs."""


def read_human36m(
    root: str | Path,
    subjects: Sequence[str],
    *,
    cameras: Sequence[str] | None = None,
    least_views: int = 2,
    every: int = 1,
) -> MultiViewSet:
    """Read Human3.6M's annotations of some subjects; no picture is opened yet. See this module's text for the form.

    The camera that is missing (of S11, Directions 2) is a missing view. Files of both conventions are read, with ``t``
    as where the camera is and as OpenCV's: that which puts the persons into their boxes.

    Args:
        root: The folder with ``images`` and ``annotations``.
        subjects: ``"S1"``, ``"S5"``, ...
        cameras: ``"1"`` to ``"4"``; default, all.
        least_views: Fewest views of a moment.
        every: Frames whose number is a multiple of this: 5 to train and 64 to test, as PPT takes them.

    Raises:
        LiftingDataError: Files that are missing or of another form, or cameras that do not see the persons.

    Example:
        >>> len(read_human36m("Human36M", ["S9", "S11"], every=64))
        2181
    """
    root = Path(root)
    moments = [moment for subject in subjects for moment in _subject(root, subject, every)]
    return make_set(moments, ImageStore(root / "images"), str(root), least_views, cameras)


def _subject(root: Path, subject: str, every: int) -> Iterator[Moment]:
    number = subject.upper().removeprefix("S")
    paths = [root / "annotations" / f"Human36M_subject{number}_{kind}.json" for kind in _KINDS]
    pictures, cameras, joints = (read_json(path, LiftingDataError) for path in paths)
    where = f"{paths[0]} and the two beside it"
    try:
        boxes = {entry["image_id"]: entry["bbox"] for entry in pictures["annotations"]}
        grouped: dict[tuple[int, int, int], list[dict[str, Any]]] = defaultdict(list)
        for image in pictures["images"]:
            if image["frame_idx"] % every == 0:
                grouped[image["action_idx"], image["subaction_idx"], image["frame_idx"]].append(image)
        poses = {
            key: finite_numbers(joints[str(key[0])][str(key[1])][str(key[2])], (-1, 3), where)[: len(JOINTS)] / 1000
            for key in grouped
        }
        some = list(grouped)[:: max(len(grouped) // _TRIED, 1)]
        tried = [(image, poses[key], boxes[image["id"]]) for key in some for image in grouped[key]]
        made = _cameras_of(cameras, subject, where, tried)
        for key in sorted(grouped):
            views: dict[str, View] = {}
            for image in sorted(grouped[key], key=lambda each: each["cam_idx"]):
                camera = made.of(image)
                seen = seen_by(camera, poses[key])
                view = None if seen is None else labelled_view(camera, image["file_name"], seen, boxes[image["id"]])
                if view is not None:
                    views[str(image["cam_idx"])] = view
            yield Moment(f"{subject}, action {key[0]}.{key[1]}, frame {key[2]}", views, poses[key])
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise LiftingDataError(f"{where}: not of the form expected: {type(error).__name__}: {error}") from error


Seen = tuple[dict[str, Any], Array, Any]
"""What the file says of a picture, the pose in it, and the box."""


def _cameras_of(table: dict[str, Any], subject: str, where: str, tried: list[Seen]) -> _Cameras:
    """The cameras in that convention in which they see the persons in their boxes."""
    both = [_Cameras(table, subject, where, placed) for placed in (False, True)]
    shares = [float(np.mean([made.fits(*each) for each in tried])) if tried else 1.0 for made in both]
    if max(shares) < _FITTING:
        raise LiftingDataError(
            f"{where}: with t as OpenCV's {100 * shares[0]:.0f} %, with t as the camera's position "
            f"{100 * shares[1]:.0f} % of the persons are in their boxes: are the files of one subject and one version?"
        )
    return both[int(shares[1] > shares[0])]


@dataclass
class _Cameras:
    """The cameras of a subject, of which each has as many sizes as its pictures have (1000 x 1000 and 1000 x 1002).

    Attributes:
        table: Number -> R, t, f and c.
        subject: Whose.
        where: The files, for messages.
        placed: Whether ``t`` is where a camera is, instead of OpenCV's.
        made: Number, width and height -> camera.
    """

    table: dict[str, Any]
    subject: str
    where: str
    placed: bool
    made: dict[tuple[str, int, int], Camera] = field(default_factory=dict)

    def of(self, image: dict[str, Any]) -> Camera:
        number, width, height = str(image["cam_idx"]), int(image["width"]), int(image["height"])
        if (number, width, height) not in self.made:
            entry = self.table[number]
            R, t, f, c = (
                finite_numbers(entry[part], shape, f"{self.where}: {part} of camera {number}", flat=len(shape) == 1)
                for part, shape in (("R", (3, 3)), ("t", (3,)), ("f", (2,)), ("c", (2,)))
            )
            inner = np.array([[f[0], 0, c[0]], [0, f[1], c[1]], [0, 0, 1]])
            moved = (-R @ t if self.placed else t) / 1000
            name = f"{self.subject}-{number}"
            self.made[number, width, height] = Camera.from_opencv(name, R, moved, inner, (width, height))
        return self.made[number, width, height]

    def fits(self, image: dict[str, Any], pose: Array, box: Any) -> bool:
        """Whether the person is in the box, more or less."""
        camera = self.of(image)
        local = camera.to_camera(pose)
        if (local[:, 2] <= 0).any():
            return False
        pixels, corner, side = camera.project(local), np.array(box[:2]), np.array(box[2:])
        inside = (pixels > corner - _MARGIN) & (pixels < corner + side + _MARGIN)
        return bool(inside.all(axis=1).mean() > 0.5)
