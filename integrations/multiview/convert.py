"""Weights of the authors' multi-view PPT in our names, and back, strictly; or what their training starts from.

    cycledistill convert multiview theirs.pth.tar ours.safetensors
    cycledistill convert multiview ours.safetensors theirs.pth --to ppt
    cycledistill convert multiview ppt_s.safetensors start.safetensors --from-coco

Files are read without running code from them.
"""

from __future__ import annotations

import argparse

import torch

from cycledistill.integrations.human36m.multiview.key_map import multiview_from_official, multiview_to_official
from cycledistill.integrations.human36m.multiview.model import create_multiview
from cycledistill.integrations.human36m.multiview.start import start_from_coco
from cycledistill.integrations.human36m.multiview.weights import MODEL, save_multiview_weights
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.convert import fields_of
from cycledistill.recipes.weights.files import network_metadata, of_file, read_weights, write_weights


def convert_file(options: argparse.Namespace) -> str:
    """Convert one file.

    Returns:
        What was written, in a line.

    Raises:
        CheckpointError: A file or options that cannot be used.
        OSError: The target cannot be written.
    """
    if options.from_coco:
        return _start(options)
    with torch.device("meta"):
        config = create_multiview(**fields_of(options)).config
    state = read_weights(options.input)
    with of_file(options.input):
        converted = (multiview_to_official if options.to else multiview_from_official)(state, config)
    write_weights(converted, options.output, {} if options.to else network_metadata(config, MODEL))
    return f"{options.output}: {len(converted)} tensors"


def _start(options: argparse.Namespace) -> str:
    if options.to:
        raise CheckpointError(f"--from-coco makes a start in this library's names: leave out --to {options.to}")
    torch.manual_seed(0)
    model = create_multiview(**fields_of(options))
    fresh = start_from_coco(model, options.input)
    save_multiview_weights(model, options.output)
    return f"{options.output}: {len(model.state_dict())} tensors, drawn anew: {', '.join(fresh) or 'none'}"
