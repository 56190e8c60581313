r"""Weights of the authors' released files in our names, and back, strictly: every tensor is accounted for.

    python -m cycledistill.integrations.human36m.convert best_epoch.bin motionbert.safetensors --model motionbert
    python -m cycledistill.integrations.human36m.convert ours.safetensors theirs.pth --model mixste --official
    python -m cycledistill.integrations.human36m.convert theirs.pth.tar ours.safetensors --model multiview_ppt
    python -m cycledistill.integrations.human36m.convert ppt_s.safetensors start.safetensors --model multiview_ppt \
        --from-coco

Files are read without running code from them. Exit codes: 0, or 2 for bad input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import torch

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.convert import convert_command, convert_parser
from cycledistill.recipes.weights.files import State, network_metadata, of_file, read_weights, write_weights

from .models.registry import create_lifter
from .multiview.key_map import multiview_from_official, multiview_to_official
from .multiview.model import create_multiview
from .multiview.start import start_from_coco
from .multiview.weights import MODEL as MULTIVIEW
from .multiview.weights import save_multiview_weights
from .weights.key_map import from_official, to_official


def main(argv: Sequence[str] | None = None) -> int:
    """The command: convert one file; 0, or 2 for bad input."""
    return convert_command(_parser(), _convert, argv)


def _parser() -> argparse.ArgumentParser:
    parser = convert_parser(
        prog="python -m cycledistill.integrations.human36m.convert",
        description="Weights of the released MixSTE, MHFormer, MotionBERT, HoT and PPT files in this library's names.",
        suffixes=".pth, .bin or .safetensors",
        models=f"as in list_lifters(), or {MULTIVIEW}",
        option="frames=81",
    )
    parser.add_argument("--resize", action="store_true", help="interpolate tables learned for another clip length")
    parser.add_argument("--official", action="store_true", help="the other way: ours to the authors' names")
    parser.add_argument(
        "--from-coco",
        action="store_true",
        help=f"{MULTIVIEW}: a start from a PPT-S trained on COCO, the rest drawn anew",
    )
    return parser


def _convert(options: argparse.Namespace) -> str:
    if options.model == MULTIVIEW:
        return _convert_multiview(options)
    if options.from_coco:
        raise CheckpointError(f"--from-coco goes with --model {MULTIVIEW}, not with {options.model}")
    if options.official and options.resize:
        raise CheckpointError("--resize goes with the authors' files, not with --official")
    state = read_weights(options.input)
    with torch.device("meta"):
        model = create_lifter(options.model, **options.fields)
    with of_file(options.input):
        converted = to_official(state, model) if options.official else from_official(state, model, options.resize)
    return _write(converted, options, model.config)


def _convert_multiview(options: argparse.Namespace) -> str:
    if options.resize or (options.official and options.from_coco):
        raise CheckpointError(
            f"{MULTIVIEW} is converted as it is, with --official or with --from-coco, without --resize"
        )
    if options.from_coco:
        torch.manual_seed(0)
        model = create_multiview(**options.fields)
        fresh = start_from_coco(model, options.input)
        save_multiview_weights(model, options.output)
        return f"{options.output}: {len(model.state_dict())} tensors, drawn anew: {', '.join(fresh) or 'none'}"
    with torch.device("meta"):
        config = create_multiview(**options.fields).config
    state = read_weights(options.input)
    with of_file(options.input):
        converted = (multiview_to_official if options.official else multiview_from_official)(state, config)
    return _write(converted, options, config)


def _write(converted: State, options: argparse.Namespace, config: Any) -> str:
    write_weights(converted, options.output, {} if options.official else network_metadata(config, options.model))
    return f"{options.output}: {len(converted)} tensors"


if __name__ == "__main__":
    sys.exit(main())
