"""Arguments that several commands take."""

from __future__ import annotations

import argparse


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the model to build, see :mod:`cycledistill.commands.models`."""
    parser.add_argument("model", help="timm name, torchvision:NAME, or hf:TYPE (a model type, or a folder)")
    parser.add_argument("--img-size", type=int, metavar="S", help="build the model for S x S images")
