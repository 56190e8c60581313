"""Weights of the authors' released files in our names, and back, strictly: every tensor is accounted for.

    python -m cycledistill.integrations.coco.convert sdpose_s_v1.pth sdpose_s_v1.safetensors --model sdpose_s_v1
    python -m cycledistill.integrations.coco.convert ours.safetensors theirs.pth --model sdpose_s_v1 --to sdpose

Files are read without running code from them. Exit codes: 0, or 2 for bad input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.files import network_metadata, read_weights, stored_network, write_weights

from .models.registry import pose_model_config
from .weights.loading import check_network
from .weights.official import FORMATS
from .weights.suggest import keypoint_count
from .weights.translate import from_official, to_official


def main(argv: Sequence[str] | None = None) -> int:
    """Convert one file.

    Args:
        argv: The arguments after the program's name; default, those of the process.

    Returns:
        0, or 2 for bad input, with the reason on stderr.
    """
    options = _parser().parse_args(argv)
    try:
        sys.stdout.write(_convert(options) + "\n")
    except (ValueError, OSError) as error:  # CheckpointError is a ValueError
        sys.stderr.write(f"convert: {error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cycledistill.integrations.coco.convert",
        description="Weights of the released SDPose, TokenPose, DistilPose and PPT files in this library's names.",
    )
    parser.add_argument("input", type=Path, metavar="IN", help=".pth or .safetensors")
    parser.add_argument("output", type=Path, metavar="OUT", help=".safetensors, .pth or .pt")
    parser.add_argument("--model", required=True, metavar="NAME", help="the model, as in list_pose_models()")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="e.g. stage1_width=32")
    parser.add_argument("--to", choices=FORMATS, metavar="FORMAT", help=f"the other way, to: {', '.join(FORMATS)}")
    parser.add_argument("--loss", type=Path, metavar="FILE", help="with --to: weights of RLELoss to store beside")
    return parser


def _convert(options: argparse.Namespace) -> str:
    state = read_weights(options.input)
    fields = {"num_keypoints": keypoint_count(state) or 17, **dict(map(_field, options.set))}
    config = pose_model_config(options.model, **fields).network
    if options.to is not None:
        check_network(stored_network(options.input), config, options.input)
        loss = None if options.loss is None else read_weights(options.loss)
        theirs = to_official(state, config, options.to, loss)
        write_weights(theirs, options.output)
        return f"{options.output}: {len(theirs)} tensors in the format {options.to}"
    if options.loss is not None:
        raise CheckpointError("--loss goes with --to: without it, weights of the loss are written beside OUT")
    try:
        converted = from_official(state, config)
    except CheckpointError as error:
        raise CheckpointError(f"{options.input}: {error}") from None
    write_weights(converted.model, options.output, network_metadata(config, options.model))
    message = f"{options.output}: {len(converted.model)} tensors, read as {converted.format}"
    if converted.loss:
        beside = options.output.with_suffix(f".loss{options.output.suffix}")
        write_weights(converted.loss, beside)
        message += f"\n{beside}: {len(converted.loss)} tensors of RLELoss"
    return message


def _field(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise CheckpointError(f"--set {text}: FIELD=VALUE is expected, e.g. stage1_width=32")
    return name, yaml.safe_load(value)


if __name__ == "__main__":
    sys.exit(main())
