"""The options of the commands for what is written beside the poses, and what they do."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .animation import animate
from .bvh import write_bvh
from .gltf import write_gltf
from .outputs import Outputs, Seen, check_clip
from .upright import UPS, body_joints, check_body, fill_joints, stand, up_axis, upright

_logger = logging.getLogger(__name__)

Array = NDArray[np.floating]


def add_arguments(parser: argparse.ArgumentParser, *, lifted: bool) -> None:
    """Add the options to a command's parser.

    Args:
        parser: The command's.
        lifted: Of poses of one camera, which have 2D and are relative to the root.
    """
    group = parser.add_argument_group("to look at")
    group.add_argument("--animate", type=Path, metavar="FILE", help="an animation, .mp4 or .gif; needs OpenCV, Pillow")
    group.add_argument("--bvh", type=Path, metavar="FILE", help="the motion of a skeleton, in centimetres, .bvh")
    group.add_argument("--gltf", type=Path, metavar="FILE", help="the same as glTF 2.0, in metres, .glb or .gltf")
    up = "the axis that points up, after = where it begins with a minus (--up=-y); default, that of the trunk"
    if not lifted:
        group.add_argument("--up", choices=UPS, help=up)
        return
    group.add_argument("--pictures", type=Path, metavar="PATH", help="video or folder to show with --animate")
    first = "the number that the keypoints' file has for a video's first picture (default 0; YOLO's labels: 1)"
    group.add_argument("--first-picture", type=int, metavar="N", help=first)
    group.add_argument("--camera", type=Path, metavar="FILE", help="its calibration: poses are in its world then")
    group.add_argument(
        "--camera-name", metavar="NAME", help="which camera of that file (default: the keypoints' name, if one has it)"
    )
    group.add_argument("--camera-unit", metavar="UNIT", help="of that file: m, cm, mm, or the metres of one unit")
    group.add_argument("--up", choices=UPS, help=f"with --camera, {up}")


def write_outputs(
    poses: Array,
    outputs: Outputs,
    frame_rate: float | None,
    *,
    seen: Seen | None = None,
    named: Callable[[Path], Path] = Path,
) -> None:
    """Write what the options ask for, and say so.

    Args:
        poses: (T, J, 3), metres, in a world; of one camera that is not calibrated, in camera axes relative to the root.
        outputs: What is to be written.
        frame_rate: Frames a second, where it is known.
        seen: The 2D of one camera, to show.
        named: What a file is called, of one person of several.

    Raises:
        LiftingDataError: See :func:`check_clip`; poses or pictures that cannot be shown.
        RecipeError: What an animation needs is not installed.
    """
    if not outputs.files():
        return
    check_clip(outputs, frame_rate, seen)
    assert frame_rate is not None  # checked
    body = body_joints(poses, outputs.joints)
    check_body(body, "the poses", known=False)
    in_world = seen is None or seen.camera is not None
    shown = upright(body, _up(body, outputs.up)) if in_world else stand(upright(body, "-y"))
    if outputs.animate:
        path = named(outputs.animate)
        _animate(shown, path, frame_rate, seen, outputs)
        sys.stdout.write(f"animation: {path}\n")
    if outputs.bvh or outputs.gltf:
        whole = _filled(shown)
        for word, file, write in (("BVH", outputs.bvh, write_bvh), ("glTF", outputs.gltf, write_gltf)):
            if file:
                rig = write(whole, named(file), frame_rate)
                sys.stdout.write(f"{word}: {named(file)}; {rig.describe()}\n")


def _up(body: Array, given: str | None) -> str:
    if given is not None:
        return given
    found = up_axis(body)
    _logger.info("%s is taken for the axis that points up: trunks do, on the whole; --up says another", found)
    return found


def _filled(shown: Array) -> Array:
    missing = np.isnan(shown).any(axis=-1)
    if not missing.any():
        return shown
    _logger.warning(
        "%d of %d joints are not known; BVH and glTF have them from the frames around", missing.sum(), missing.size
    )
    return fill_joints(shown)


def _animate(shown: Array, path: Path, frame_rate: float, seen: Seen | None, outputs: Outputs) -> None:
    if seen is None:
        animate(shown, path, frame_rate)
        return
    pictures = None
    if outputs.pictures is not None:
        from .pictures import read_pictures

        pictures = read_pictures(outputs.pictures, seen.picture_numbers(), seen.first)
    animate(shown, path, frame_rate, keypoints=seen.keypoints, size=seen.size, pictures=pictures)
