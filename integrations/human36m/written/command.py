"""The options of the commands for what is written beside the poses, and what they do."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.calibration.file import read_calibration
from ..data.cameras import Camera, screen_to_pixels
from ..data.keypoints.person import Keypoints
from ..data.timing import check_rate
from ..errors import LiftingDataError
from .animation import animate
from .bvh import write_bvh
from .gltf import write_gltf
from .targets import check_file
from .upright import UPS, body_joints, check_body, fill_joints, stand, up_axis, upright
from .world import place_in_world

_logger = logging.getLogger(__name__)

Array = NDArray[np.floating]

_SUFFIXES = {"animate": (".gif", ".mp4"), "bvh": (".bvh",), "gltf": (".glb", ".gltf")}

_NEEDED = {"pictures": "animate", "first_picture": "pictures", "camera_name": "camera", "camera_unit": "camera"}


@dataclass(frozen=True)
class Seen:
    """The 2D that poses were lifted from.

    Attributes:
        keypoints: (T, 17, 2), pixels.
        size: Width and height of the picture.
        frame_rate: Frames a second, where it is known.
        numbers: (T,), the numbers of the pictures, where they have any.
        first: The number of a video's first picture.
    """

    keypoints: Array
    size: tuple[float, float]
    frame_rate: float | None = None
    numbers: NDArray[np.int64] | None = None
    first: int = 0


def seen_by(inputs: Array, person: Keypoints, args: argparse.Namespace, usual_rate: float | None) -> Seen:
    """What a model saw.

    Args:
        inputs: (T, 17, 2 or 3), normalised, see `model_input`.
        person: Whom they are made of.
        args: The command's: ``width``, ``height`` and ``frame_rate`` go before what the file says.
        usual_rate: Frames a second of the model, where neither does.
    """
    width: Any = args.width or person.width  # one of them is known, or there would be no inputs
    height: Any = args.height or person.height
    rate = args.frame_rate or person.frame_rate or usual_rate
    first = person.first if args.first_picture is None else args.first_picture
    return Seen(screen_to_pixels(inputs[..., :2], width, height), (width, height), rate, person.frames, first)


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
    group.add_argument("--camera-name", metavar="NAME", help="which camera of that file")
    group.add_argument("--camera-unit", metavar="UNIT", help="of that file: m, cm, mm, or the metres of one unit")
    group.add_argument("--up", choices=UPS, help=f"with --camera, {up}")


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse options that cannot be followed, before the work is done.

    Raises:
        LiftingDataError: Another suffix, a folder or a file that is not there, or an option without the one it is of.
    """
    for name, suffixes in _SUFFIXES.items():
        if getattr(args, name):
            check_file(getattr(args, name), suffixes)
    for name, needed in _NEEDED.items():
        if getattr(args, name, None) is not None and not getattr(args, needed):
            raise LiftingDataError(f"--{name.replace('_', '-')} is of --{needed}: give that too")
    if getattr(args, "up", None) and hasattr(args, "camera") and not args.camera:
        raise LiftingDataError("--up is of --camera: without one y points down, as the camera sees it")
    if getattr(args, "pictures", None) and not args.pictures.exists():
        raise LiftingDataError(f"{args.pictures}: there is no such video or folder of pictures")


def read_camera(path: Path, name: str | None, unit: str | None, size: tuple[float, float]) -> Camera:
    """The camera of a calibration that took pictures of a size.

    Raises:
        LiftingDataError: See :func:`read_calibration`; it has several cameras and none is named, none of that name, or
            one of other pictures.
    """
    cameras = read_calibration(path, unit, (int(size[0]), int(size[1])))
    if name is None and len(cameras) > 1:
        raise LiftingDataError(f"{path} has the cameras {', '.join(cameras)}: say which it is, --camera-name")
    if name is not None and name not in cameras:
        raise LiftingDataError(f"{path} has no camera {name}; it has {', '.join(cameras)}")
    camera = cameras[name] if name is not None else next(iter(cameras.values()))
    if camera.size != tuple(size):
        raise LiftingDataError(
            f"{path}: camera {camera.name} was calibrated on pictures of {camera.size[0]} x {camera.size[1]}, the "
            f"keypoints' are {size[0]:g} x {size[1]:g}: another camera, or pictures that were scaled or cut?"
        )
    return camera


def in_world(poses: NDArray[np.float32], seen: Seen, args: argparse.Namespace) -> NDArray[np.float32]:
    """Lifted poses in the world of ``--camera``; without one, as they are.

    Raises:
        LiftingDataError: See :func:`read_camera` and :func:`place_in_world`.
    """
    if not args.camera:
        return poses
    if not args.person_height:
        _logger.warning(
            "--camera without --person-height: the person is taken for as tall as those that the model was trained on, "
            "and is as much too near or too far as that is wrong"
        )
    camera = read_camera(args.camera, args.camera_name, args.camera_unit, seen.size)
    return place_in_world(poses, seen.keypoints, camera)[0]


def write_outputs(
    poses: Array,
    args: argparse.Namespace,
    frame_rate: float | None,
    *,
    joints: str = "h36m",
    seen: Seen | None = None,
    world: bool = True,
    named: Callable[[Path], Path] = Path,
) -> None:
    """Write what the options ask for, and say so.

    Args:
        poses: (T, J, 3), metres.
        args: The command's.
        frame_rate: Frames a second, where it is known.
        joints: Of the poses, see :func:`body_joints`.
        seen: The 2D, to show.
        world: Whether poses are in a world; otherwise they are in camera axes and relative to the root.
        named: What a file is called, of one person of several.

    Raises:
        LiftingDataError: The frame rate is not known; poses or pictures that cannot be shown.
        RecipeError: What an animation needs is not installed.
    """
    if not (args.animate or args.bvh or args.gltf):
        return
    if frame_rate is None:
        raise LiftingDataError("how many frames a second there are is not known: give --frame-rate")
    check_rate(frame_rate)
    body = body_joints(poses, joints)
    check_body(body, "the poses", known=False)
    shown = upright(body, _up(body, args.up)) if world else stand(upright(body, "-y"))
    if args.animate:
        path = named(args.animate)
        _animate(shown, path, frame_rate, seen, args)
        sys.stdout.write(f"animation: {path}\n")
    if args.bvh or args.gltf:
        whole = _filled(shown)
        for word, file, write in (("BVH", args.bvh, write_bvh), ("glTF", args.gltf, write_gltf)):
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


def _animate(shown: Array, path: Path, frame_rate: float, seen: Seen | None, args: argparse.Namespace) -> None:
    source: Path | None = getattr(args, "pictures", None)
    if seen is None:
        animate(shown, path, frame_rate)
        return
    pictures = None
    if source is not None:
        from .pictures import check_video_rate, read_pictures

        numbers = None if seen.numbers is None else seen.numbers.tolist()
        check_video_rate(source, frame_rate, numbers, insisted=bool(getattr(args, "frame_rate", None)))
        pictures = read_pictures(source, len(shown) if numbers is None else numbers, seen.first)
    animate(shown, path, frame_rate, keypoints=seen.keypoints, size=seen.size, pictures=pictures)
