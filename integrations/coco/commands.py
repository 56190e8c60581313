"""The commands ``predict coco`` and ``convert coco``: their arguments.

What they do is in ``prediction/command.py`` and ``convert.py``, which need more than help may load. So do the modules
whose names stand here again; a test holds them equal.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cycledistill.commands.arguments import add_conversion
from cycledistill.commands.verb import Verb
from cycledistill.terminal.flags import PICTURES, TRAINED, add_flag

FORMAT_NAMES = ("sdpose", "sdpose-tokenpose", "distilpose", "tokenpose-s", "tokenpose", "ppt-s", "ppt")
KINDS = ("results", "poses", "csv", "drawn", "keypoints")


def add_pictures(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of finding poses in pictures."""
    parser.add_argument("model", metavar="MODEL", help=TRAINED)
    parser.add_argument("source", metavar="SOURCE", help=PICTURES)
    add_flag(parser, "--output", "a new folder", required=True, type=Path)
    whose = parser.add_mutually_exclusive_group()
    add_flag(whose, "--boxes", "by file name or image id", type=Path)
    add_flag(whose, "--detector")
    parser.add_argument(
        "--box-score",
        type=float,
        metavar="SCORE",
        help="least score of a box (default: a detector's 0.3, a file's 0)",
    )
    parser.add_argument(
        "--categories",
        nargs="+",
        metavar="ID",
        help="of a file of boxes these categories, by id or name (default: the run's data.categories; else those that "
        "have the model's joints, or the only one)",
    )
    parser.add_argument("--track", action="store_true", help="follow persons from frame to frame, and number them")
    parser.add_argument(
        "--write", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help=f"of {', '.join(KINDS)} (default: all)"
    )
    add_flag(parser, "--limit", "pictures or frames")
    add_flag(parser, "--skip-broken", "and count them")
    add_flag(parser, "--exif", "default: apply", default="apply")
    add_flag(parser, "--config", "of a file of weights that does not say it")
    add_flag(parser, "--ema")
    add_flag(parser, "--exit", "default: 1", default=1)
    add_flag(parser, "--device", default="auto")
    add_flag(parser, "--batch-size", "persons; default: the run's, else 64")
    parser.epilog = "Without --boxes and --detector a picture is taken for one person who fills it."


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_conversion(parser, ".pth or .safetensors", "of list_pose_models()", "stage1_width=32", FORMAT_NAMES)
    parser.add_argument("--loss", type=Path, metavar="FILE", help="with --to: weights of RLELoss to store beside")


PREDICT = Verb(
    "find the poses of persons in pictures, a video or a camera's picture, with a trained pose model",
    "cycledistill[coco]",
    add_pictures,
    "cycledistill.integrations.coco.prediction.command:predict_files",
)
CONVERT = Verb(
    "weights of the released SDPose, TokenPose, DistilPose and PPT files in this library's names, and back",
    "cycledistill[coco]",
    add_weights,
    "cycledistill.integrations.coco.convert:convert_file",
)
