"""The commands ``cycledistill predict human36m``, ``predict triangulate`` and ``convert human36m``: their arguments.

What they do is in ``lift.py``, ``triangulate.py`` and ``convert.py``, which need more than help may load. So do the
modules whose names and numbers stand here again; a test holds them equal.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from cycledistill.commands.arguments import add_conversion
from cycledistill.commands.verb import Verb
from cycledistill.terminal.flags import TRAINED, add_flag

JOINT_ORDERS = ("coco", "h36m", "halpe26")
MAPPINGS = ("extrapolated", "midpoints")
FORMAT_NAMES = ("mixste", "mhformer", "motionbert")
UP_AXES = ("x", "-x", "y", "-y", "z", "-z")
FILLED_FRAMES, SEEN_CONFIDENCE, VIEW_THRESHOLD = 25, 0.05, 20.0
REQUIRES = "cycledistill[human36m]"


def add_lifting(parser: argparse.ArgumentParser) -> None:
    """Add the options of lifting, but for the model, the file and the target."""
    add_flag(parser, "--config", "of a file of weights that does not say it")
    add_flag(parser, "--ema")
    add_flag(parser, "--device", default="auto")
    add_layout(parser, "the file's form, else coco", JOINT_ORDERS)
    _add_track_id(parser, "default: all, a file each", metavar="ID")
    parser.add_argument(
        "--person", type=int, metavar="N", help="lift this person alone, from 1, the longest seen first"
    )
    _add_size(parser)
    parser.add_argument(
        "--fill-gaps",
        type=_frames,
        nargs="?",
        const=FILLED_FRAMES,
        default=0,
        metavar="FRAMES",
        help="fill what was not detected from the frames around, over so many in a row (%(const)s)",
    )
    _add_confidence(parser)
    add_frame_rate(parser)
    parser.add_argument(
        "--overlap", type=int, metavar="FRAMES", help="frames that windows share (default: a quarter of a window)"
    )
    parser.add_argument(
        "--delay", type=int, metavar="FRAMES", help="see so many frames after each at most, as live; 0: the past alone"
    )
    parser.add_argument(
        "--person-height", type=float, metavar="METRES", help="scales the poses, and is needed for MotionBERT's"
    )
    parser.add_argument("--coco-mapping", choices=MAPPINGS, help="default, as the weights' authors do it")
    _add_unchecked(parser)
    parser.add_argument("--figure", type=Path, metavar="FILE", help="also draw some of the poses; needs matplotlib")
    add_written(parser, lifted=True)


def add_written(parser: argparse.ArgumentParser, *, lifted: bool) -> None:
    """Add the options for what is written beside the poses.

    Args:
        parser: The command's.
        lifted: Of poses of one camera, which have 2D and are relative to the root.
    """
    group = parser.add_argument_group("to look at")
    group.add_argument("--animate", type=Path, metavar="FILE", help="an animation, .mp4 or .gif; needs OpenCV, Pillow")
    group.add_argument("--bvh", type=Path, metavar="FILE", help="the motion of a skeleton, in centimetres, .bvh")
    group.add_argument("--gltf", type=Path, metavar="FILE", help="the same as glTF 2.0, in metres, .glb or .gltf")
    up = "the axis of the world that points up, --up=-y where it begins with a minus"
    needs = "with --calibration; " if lifted else ""
    group.add_argument("--up", choices=UP_AXES, help=f"{up} ({needs}default: that of the trunk)")
    if not lifted:
        return
    group.add_argument("--pictures", type=Path, metavar="PATH", help="video or folder to show with --animate")
    first = "the number that the keypoints' file has for a video's first picture (default: 0; YOLO's labels: 1)"
    group.add_argument("--first-picture", type=int, metavar="N", help=first)
    _add_calibration(group, "poses are in its world then; may be given again")
    about = "which camera of the calibration (default: the keypoints' name, if one has it)"
    group.add_argument("--camera-name", metavar="NAME", help=about)


def add_views(parser: argparse.ArgumentParser) -> None:
    """Add the options of triangulating keypoint files, but for the files."""
    add_layout(parser, "the files' form, else coco")
    _add_track_id(parser, "the person of a view", metavar="NAME=ID", action="append", default=[])
    add_triangulation(parser)
    add_frame_rate(parser)
    add_written(parser, lifted=False)


def add_triangulation(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say of which cameras, how, and where to."""
    _add_calibration(parser, "may be given again", required=True)
    add_poses(parser)
    _add_size(parser)
    parser.add_argument(
        "--threshold",
        type=float,
        default=VIEW_THRESHOLD,
        metavar="PIXELS",
        help="reprojection error of a view that counts, at most (default: %(default)s)",
    )
    parser.add_argument(
        "--min-views", type=int, default=2, metavar="N", help="views that must agree on a joint (default: 2)"
    )
    _add_confidence(parser)
    parser.add_argument("--all-views", action="store_true", help="leave no view out, however far off (no RANSAC)")
    _add_unchecked(parser)


def add_poses(parser: argparse.ArgumentParser) -> None:
    """Add the file that poses are written to."""
    add_flag(parser, "--output", ".npz or .json", required=True, type=Path)


def add_layout(parser: argparse.ArgumentParser, default: str, known: Sequence[str] = (*JOINT_ORDERS, "other")) -> None:
    """Add the option of which joints there are, in which order."""
    parser.add_argument("--layout", choices=known, help=f"the joints and their order (default: {default})")


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of converting weights."""
    add_conversion(parser, ".pth, .bin or .safetensors", "of list_lifters()", "frames=81", FORMAT_NAMES)
    parser.add_argument("--resize", action="store_true", help="interpolate tables learned for another clip length")
    parser.add_argument(
        "--convention",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what the weights' numbers mean, where it is not what the authors trained: unit=metres or picture, "
        "root=given (MotionBERT's weights for global motion), coco=midpoints or extrapolated, frame_rate=50",
    )


def _add_size(parser: argparse.ArgumentParser) -> None:
    for side in ("width", "height"):
        about = f"{side} of the pictures (default: what the files say)"
        parser.add_argument(f"--{side}", type=_above_0, metavar="PIXELS", help=about)


def _add_calibration(parser: argparse._ActionsContainer, note: str, **more: bool) -> None:
    add_flag(parser, "--calibration", note, action="append", default=[], **more)
    add_flag(parser, "--unit", "default: as the files say, else m")


def _add_unchecked(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--unchecked", action="store_true", help="take what does not look like a person, too")


def _add_confidence(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--min-confidence",
        type=float,
        default=SEEN_CONFIDENCE,
        metavar="SCORE",
        help="a keypoint with less was guessed, not detected (default: %(default)s)",
    )


def add_frame_rate(parser: argparse.ArgumentParser) -> None:
    """Add the option of how many frames there are a second; the work refuses what is no such rate."""
    parser.add_argument("--frame-rate", type=_above_0, metavar="RATE", help="frames a second (default: as files say)")


def _add_track_id(parser: argparse.ArgumentParser, note: str, **more: Any) -> None:
    parser.add_argument("--track-id", dest="track", help=f"this track of the file alone ({note})", **more)


def _frames(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a number of frames, from 1, is expected")
    return int(text)


def _above_0(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not (isfinite(found) and found > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: a number above 0 is expected")
    return found


def _predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=TRAINED)
    parser.add_argument("keypoints", type=Path, metavar="SOURCE", help="a file of 2D keypoints, or a folder of files")
    add_poses(parser)
    add_lifting(parser)


def _triangulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "keypoints", nargs="+", metavar="SOURCE", help="a file a view, called as its camera, or NAME=FILE"
    )
    add_views(parser)


_HERE = "cycledistill.integrations.human36m"
PREDICT = Verb("3D poses of files of 2D keypoints, with a lifting model", REQUIRES, _predict, f"{_HERE}.lift:lift_file")
TRIANGULATE = Verb(
    "3D poses of keypoint files of several calibrated cameras; needs no model",
    REQUIRES,
    _triangulate,
    f"{_HERE}.triangulate:triangulate_files",
)
CONVERT = Verb(
    "weights of the released MixSTE, MHFormer, MotionBERT and HoT files in this library's names, and back",
    REQUIRES,
    add_weights,
    f"{_HERE}.convert:convert_file",
)
