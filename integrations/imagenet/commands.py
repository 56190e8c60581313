"""The command ``predict imagenet``: its arguments; what it does is in ``prediction/command.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from cycledistill.commands.verb import Verb
from cycledistill.terminal.flags import PICTURES, TRAINED, add_flag

SHOWN = 20
"""Pictures whose classes are shown on standard output."""


def add_pictures(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of finding the classes of pictures."""
    parser.add_argument("model", metavar="MODEL", help=TRAINED)
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help=f"{PICTURES}; or several of these")
    add_flag(parser, "--output", "a new folder", type=Path)
    parser.add_argument("--top", type=int, default=5, metavar="N", help="so many classes a picture (default: 5)")
    add_flag(parser, "--limit", "pictures or frames")
    add_flag(parser, "--skip-broken", "and count them")
    add_flag(parser, "--exif", "default: ignore, as evaluation does", default="ignore")
    add_flag(parser, "--config", "of a file of weights that does not say it")
    add_flag(parser, "--ema")
    add_flag(parser, "--exit", "default: 1", default=1)
    add_flag(parser, "--device", default="auto")
    add_flag(parser, "--batch-size", "pictures; default: the run's, else 64")
    parser.epilog = (
        f"Of the first {SHOWN} pictures the likeliest classes are shown; --output has those of all, as classes.json "
        "and classes.csv."
    )


PREDICT = Verb(
    "the likeliest classes of pictures, with a trained classifier",
    "cycledistill[imagenet]",
    add_pictures,
    "cycledistill.integrations.imagenet.prediction.command:predict_files",
)
