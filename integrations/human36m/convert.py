"""Weights of the authors' released files in our names, and back, strictly: every tensor is accounted for.

    cycledistill convert human36m best_epoch.bin motionbert.safetensors --model motionbert
    cycledistill convert human36m ours.safetensors theirs.pth --model mixste --to mixste

Files are read without running code from them.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

import torch

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.reading.texts import parse_yaml
from cycledistill.recipes.weights.convert import fields_of
from cycledistill.recipes.weights.files import of_file, read_weights, write_weights

from .models.convention import Convention, convention_words, plain_convention
from .models.lifter import Lifter
from .models.registry import create_lifter
from .weights.key_map import format_of, from_official, to_official
from .weights.loading import stored_convention, write_lifter_state


def convert_file(options: argparse.Namespace) -> str:
    """Convert one file.

    Returns:
        What was written, in a line.

    Raises:
        CheckpointError: A file or options that cannot be used.
        OSError: The target cannot be written.
    """
    if options.to and options.resize:
        raise CheckpointError("--resize goes with the authors' files, not with --to")
    state = read_weights(options.input)
    with torch.device("meta"):
        model = create_lifter(options.model, **fields_of(options))
    if options.to and options.to != format_of(model):
        raise CheckpointError(f"--to {options.to}: a {type(model).__name__} goes to {format_of(model)}")
    convention = _convention(options, model)
    with of_file(options.input):
        converted = to_official(state, model) if options.to else from_official(state, model, options.resize)
    if options.to:
        if options.output.suffix != ".safetensors" and convention.unit != model.official.unit:
            raise CheckpointError(
                f"{options.output}: the authors' code takes the poses of this {type(model).__name__} for "
                f"{model.official.unit!r}, these weights give {convention.unit!r}, and a PyTorch file cannot say so; "
                "write a .safetensors file"
            )
        write_weights(converted, options.output, convention_words(convention, model.config.in_channels))
    else:
        write_lifter_state(converted, model, convention, options.output, options.model)
    told = ", ".join(f"{name} {value}" for name, value in asdict(convention).items())
    return f"{options.output}: {len(converted)} tensors; {told}"


def _convention(options: argparse.Namespace, model: Lifter) -> Convention:
    """What the numbers mean: as the file says, else as its authors trained, with what the command line says instead."""
    found = stored_convention(options.input) or (Convention() if options.to else model.official)
    given = {}
    for text in options.convention:
        name, equals, value = text.partition("=")
        if not equals:
            raise CheckpointError(f"--convention {text}: KEY=VALUE is expected, e.g. unit=metres")
        given[name] = parse_yaml(value, f"--convention {text}: the value", CheckpointError)
    return plain_convention(asdict(found) | given)
