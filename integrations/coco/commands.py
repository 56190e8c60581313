"""The command ``cycledistill convert coco``: its arguments; what it does is in ``convert.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from cycledistill.commands.arguments import add_conversion
from cycledistill.commands.verb import Verb

FORMAT_NAMES = ("sdpose", "sdpose-tokenpose", "distilpose", "tokenpose-s", "tokenpose", "ppt-s", "ppt")
"""``FORMATS`` of ``weights/key_map.py``, which needs more than help may load; a test holds them equal."""


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_conversion(parser, ".pth or .safetensors", "of list_pose_models()", "stage1_width=32", FORMAT_NAMES)
    parser.add_argument("--loss", type=Path, metavar="FILE", help="with --to: weights of RLELoss to store beside")


CONVERT = Verb(
    "weights of the released SDPose, TokenPose, DistilPose and PPT files in this library's names, and back",
    "cycledistill[coco]",
    add_weights,
    "cycledistill.integrations.coco.convert:convert_file",
)
