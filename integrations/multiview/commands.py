"""The command ``cycledistill predict multiview``: its arguments; what it does is in ``predict.py``."""

from __future__ import annotations

import argparse

from cycledistill.commands.verb import Verb
from cycledistill.integrations.human36m.commands import VIEW_ORDERS, add_frame_rate, add_triangulation, add_written


def add_pictures(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = "Without --boxes and --detector one person is taken to fill each picture."
    parser.add_argument("model", metavar="MODEL", help="a run, a checkpoint, weights, or USER/NAME")
    parser.add_argument(
        "views", nargs="+", metavar="SOURCE", help="a folder or a video a view, called as its camera, or NAME=FOLDER"
    )
    add_triangulation(parser)
    parser.add_argument(
        "--boxes", action="append", default=[], metavar="FILE", help="JSON of a view's boxes, NAME=FILE"
    )
    parser.add_argument("--detector", metavar="NAME", help="find persons by this detector of torchvision")
    parser.add_argument("--layout", choices=(*VIEW_ORDERS, "other"), help="the joints (default: the run's, else h36m)")
    add_frame_rate(parser, "pictures", "videos say")
    parser.add_argument("--skip-broken", action="store_true", help="take pictures that cannot be read for missing ones")
    parser.add_argument("--ema", action="store_true", help="the average of the weights")
    parser.add_argument("--exit", type=int, default=1, metavar="N", help="the cycle that answers (default 1)")
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or mps")
    parser.add_argument("--batch-size", type=int, metavar="N", help="moments at once (default: the run's, else 8)")
    add_written(parser, lifted=False)


PREDICT = Verb(
    "3D poses of one person from the pictures or videos of several calibrated cameras",
    "cycledistill[coco,human36m]",
    add_pictures,
    "cycledistill.integrations.multiview.predict:predict_files",
)
