"""Flags that several commands have: each means one thing, and says it in the same words everywhere."""

from __future__ import annotations

import argparse
from typing import Any

FLAGS: dict[str, dict[str, Any]] = {
    "--batch-size": {"type": int, "metavar": "N", "help": "samples that a process takes at once"},
    "--blocks": {"default": "auto", "metavar": "PATH", "help": 'stack of blocks, such as "layers.2.blocks"'},
    "--boxes": {"metavar": "FILE", "help": "JSON of the boxes around persons"},
    "--calibration": {"metavar": "PATH", "help": "calibration of the cameras, a file or a folder"},
    "--config": {"metavar": "NAME", "help": "recipe, a packaged one or a YAML file"},
    "--cycles": {"type": int, "metavar": "N", "help": "number of cycles"},
    "--data": {"metavar": "PATH", "help": "folder of the data set"},
    "--dataset": {"metavar": "NAME", "help": "which data set"},
    "--detector": {"metavar": "NAME", "help": "find persons by this detector of torchvision"},
    "--device": {"metavar": "DEVICE", "help": "auto, cpu, cuda or mps"},
    "--ema": {"action": "store_true", "help": "the exponential moving average of the weights in their place"},
    "--exif": {"choices": ("apply", "ignore"), "help": "whether pictures are turned as a viewer turns them"},
    "--exit": {"type": int, "metavar": "N", "help": "the cycle that answers"},
    "--img-size": {"type": int, "metavar": "PIXELS", "help": "build the model for S x S images"},
    "--limit": {"type": int, "metavar": "N", "help": "so many inputs at most"},
    "--model": {"metavar": "NAME", "help": "name of the model"},
    "--output": {"metavar": "PATH", "help": "where to write"},
    "--skip-broken": {"action": "store_true", "help": "leave out pictures that cannot be read"},
    "--test-data": {"metavar": "PATH", "help": "data to measure on"},
    "--train-data": {"metavar": "PATH", "help": "data to train on"},
    "--unit": {"metavar": "UNIT", "help": "unit of lengths in the files: m, cm, mm, or the metres of one"},
}
"""Flag -> what `argparse` is told of it."""

TRAINED = "a run, a checkpoint, a file of weights, a saved folder, or USER/NAME on the hub"
"""What a ``MODEL`` that was trained may be."""

PICTURES = "a picture, a folder, a glob in quotes, a zip file, a video, a camera's number"
"""What a ``SOURCE`` of pictures may be."""

MEASURED = "a run, a checkpoint, or a file of weights (with --config, unless it lies in its checkpoint)"
"""What a ``MODEL`` that is measured may be: a recipe says on what, and how."""


def add_flag(parser: argparse._ActionsContainer, name: str, note: str = "", **own: Any) -> None:
    """Add one of `FLAGS` to a command.

    Args:
        parser: The command's, or a group of it.
        name: ``"--exit"``.
        note: What is this command's own, in brackets behind the help: the default, the forms of a file.
        **own: What else `argparse` is told, or otherwise.

    Example:
        >>> add_flag(parser, "--exit", "default: 1", default=1)
    """
    told = FLAGS[name] | own
    parser.add_argument(name, **told | {"help": f"{told['help']} ({note})" if note else told["help"]})
