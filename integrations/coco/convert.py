"""Weights of the authors' released files in our names, and back, strictly: every tensor is accounted for.

    cycledistill convert coco sdpose_s_v1.pth sdpose_s_v1.safetensors --model sdpose_s_v1
    cycledistill convert coco ours.safetensors theirs.pth --model sdpose_s_v1 --to sdpose

Files are read without running code from them.
"""

from __future__ import annotations

import argparse

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.convert import fields_of
from cycledistill.recipes.weights.files import network_metadata, of_file, read_weights, stored_network, write_weights

from .models.registry import pose_model_config
from .weights.key_map import from_official, to_official
from .weights.loading import check_network
from .weights.suggest import keypoint_count


def convert_file(options: argparse.Namespace) -> str:
    """Convert one file.

    Returns:
        What was written, in a line or two.

    Raises:
        CheckpointError: A file, a format or options that cannot be used.
        OSError: The target cannot be written.
    """
    state = read_weights(options.input)
    fields = {"num_keypoints": keypoint_count(state) or 17, **fields_of(options)}
    config = pose_model_config(options.model, **fields).network
    if options.to is not None:
        check_network(stored_network(options.input), config, options.input)
        loss = None if options.loss is None else read_weights(options.loss)
        theirs = to_official(state, config, options.to, loss)
        write_weights(theirs, options.output)
        return f"{options.output}: {len(theirs)} tensors in the format {options.to}"
    if options.loss is not None:
        raise CheckpointError("--loss goes with --to: without it, weights of the loss are written beside OUT")
    with of_file(options.input):
        converted = from_official(state, config)
    write_weights(converted.model, options.output, network_metadata(config, options.model))
    message = f"{options.output}: {len(converted.model)} tensors, read as {converted.format}"
    if converted.loss:
        beside = options.output.with_suffix(f".loss{options.output.suffix}")
        write_weights(converted.loss, beside)
        message += f"\n{beside}: {len(converted.loss)} tensors of RLELoss"
    return message
