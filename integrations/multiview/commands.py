"""The commands ``predict multiview`` and ``convert multiview``: their arguments.

What they do is in ``predict.py`` and ``convert.py``, which need more than help may load.
"""

from __future__ import annotations

import argparse

from cycledistill.commands.arguments import add_conversion
from cycledistill.commands.verb import Verb
from cycledistill.integrations.human36m.commands import add_frame_rate, add_layout, add_triangulation, add_written
from cycledistill.terminal.flags import TRAINED, add_flag


def add_pictures(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = "Without --boxes and --detector one person is taken to fill each picture."
    parser.add_argument("model", metavar="MODEL", help=TRAINED)
    parser.add_argument(
        "views", nargs="+", metavar="SOURCE", help="a folder or a video a view, called as its camera, or NAME=FOLDER"
    )
    add_triangulation(parser)
    add_flag(parser, "--boxes", "of a view", metavar="NAME=FILE", action="append", default=[])
    add_flag(parser, "--detector")
    add_layout(parser, "the run's, else h36m")
    add_frame_rate(parser)
    add_flag(parser, "--skip-broken", "as if they were missing")
    add_flag(parser, "--ema")
    add_flag(parser, "--exit", "default: 1", default=1)
    add_flag(parser, "--device", default="auto")
    add_flag(parser, "--batch-size", "moments; default: the run's, else 8")
    add_written(parser, lifted=False)


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of converting weights."""
    add_conversion(parser, ".pth, .pth.tar or .safetensors", None, "ray_encoding=false", ["ppt"])
    about = "a start from a PPT-S trained on COCO, the rest drawn anew"
    parser.add_argument("--from-coco", action="store_true", help=about)


PREDICT = Verb(
    "3D poses of one person from the pictures or videos of several calibrated cameras",
    "cycledistill[coco,human36m]",
    add_pictures,
    "cycledistill.integrations.multiview.predict:predict_files",
)
CONVERT = Verb(
    "weights of the released multi-view PPT in this library's names, and back; or a start from COCO",
    "cycledistill[coco,human36m]",
    add_weights,
    "cycledistill.integrations.multiview.convert:convert_file",
)
