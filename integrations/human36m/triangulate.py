r"""3D poses of one person from keypoint files of several calibrated cameras.

    cycledistill predict triangulate front=front.json left=left.json right=right.json \\
        --calibration cameras.yml --unit mm --output poses.npz

Input: a file of keypoints a view (see ``data/keypoints/files.py``), called as its camera in the calibration (see
``data/calibration/file.py``), or ``NAME=FILE``. Output, npz or JSON: ``poses`` (T, J, 3), metres in the world of the
calibration, in the joints of the files, NaN (``null``) where a joint is not known; ``error`` (T, J), pixels; ``used``
(T, J, V), from which of the ``views`` a joint is made; ``frames``, where the files number their pictures.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace

import numpy as np

from .data.calibration.file import read_calibration
from .data.keypoints.files import read_keypoints
from .data.keypoints.person import Keypoints
from .data.pose_files import check_apart, check_target, write_poses
from .data.timing import check_rate
from .errors import LiftingDataError
from .multiview.command.arguments import by_name, describe_poses, triangulation_of
from .multiview.views import poses_from_views
from .written.command import write_outputs
from .written.outputs import Outputs, check_clip, check_outputs

_logger = logging.getLogger(__name__)


def triangulate_files(args: argparse.Namespace) -> None:
    """Triangulate as the arguments of :func:`~.commands.add_views` say; what is written goes to standard output.

    Raises:
        LiftingDataError: Keypoints, cameras or options that cannot be used.
        RecipeError: What an animation needs is not installed.
    """
    check_target(args.output)
    outputs = Outputs(args.animate, args.bvh, args.gltf, args.up, args.layout or "coco")
    check_outputs(outputs)
    files = by_name(args.keypoints, "keypoints")
    check_apart([args.output, *outputs.files().values()], [*files.values(), *args.calibration])
    if args.frame_rate is not None:
        check_rate(args.frame_rate)
    views = _read_views(files, by_name(args.track, "--track-id"))
    cameras = read_calibration(args.calibration, args.unit, _size(args, views))
    rate = args.frame_rate or _rate(views)
    check_clip(outputs, rate)
    layout = args.layout or _layout(views)
    outputs = replace(outputs, joints=layout)
    found = poses_from_views(views, cameras, layout=None if layout == "other" else layout, **triangulation_of(args))
    write_poses(found.poses, args.output, found.frames, error=found.error, used=found.used, views=np.array(found.views))
    sys.stdout.write(describe_poses(found, args.output))
    write_outputs(found.poses, outputs, rate, frames=found.frames)


def _rate(views: dict[str, Keypoints]) -> float | None:
    """Frames a second, where the files say it."""
    return next((view.frame_rate for view in views.values() if view.frame_rate), None)


def _layout(views: dict[str, Keypoints]) -> str:
    """The order of the joints, as the files' forms say it; COCO's where none does."""
    stated = {name: view.layout for name, view in views.items() if view.layout}
    if len(set(stated.values())) > 1:
        told = ", ".join(f"{name} {layout}" for name, layout in stated.items())
        raise LiftingDataError(f"the files are of different orders of joints: {told}; --layout says one for all")
    return next(iter(stated.values()), "coco")


def _read_views(files: dict[str, str], tracks: dict[str, str]) -> dict[str, Keypoints]:
    """The views by name. One whose file is missing or broken is left out, as long as two are left."""
    other = [name for name in tracks if name not in files]
    if other:
        raise LiftingDataError(f"--track-id {other[0]}=...: there is no view {other[0]}; views: {', '.join(files)}")
    views, faults = {}, []
    for name, file in files.items():
        try:
            views[name] = read_keypoints(file, tracks.get(name))
        except LiftingDataError as error:
            faults.append(f"view {name}: {error}")
    if faults and len(views) < 2:
        raise LiftingDataError("; ".join(faults))
    for fault in faults:
        _logger.warning("%s; the view is left out", fault)
    return views


def _size(args: argparse.Namespace, views: dict[str, Keypoints]) -> tuple[int, int] | None:
    """Of the pictures, for calibrations that do not say it."""
    if args.width and args.height:
        return round(args.width), round(args.height)
    known = {(view.width, view.height) for view in views.values()}
    width, height = known.pop() if len(known) == 1 else (None, None)
    return (int(width), int(height)) if width and height else None
