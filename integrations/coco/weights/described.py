"""What travels with a pose model's weights: how it is built and which joints it predicts, as words in their file.

So that a file alone is enough to build the model, and weights of other joints are noticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cycledistill.metadata.model import words_of as metadata_of
from cycledistill.metadata.shape import name_in
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.hub.described import build_described, built_from_words, plain_object
from cycledistill.recipes.weights.files import network_metadata, read_metadata

from ..data.joints import JointError, JointSet
from ..data.joints.names import first_difference
from ..models.tokenpose import TokenPose


def words_of(model: TokenPose, name: str | None = None) -> dict[str, str]:
    """What a safetensors file says of a model's weights.

    Args:
        model: A pose model, wrapped or not.
        name: Its name in the registry, to be stored too.

    Returns:
        What every file of a model says (``model``: its name, else its class), and ``format``; ``config`` (the network),
        ``built_from`` and ``joints`` as JSON.
    """
    words = metadata_of(model) | network_metadata(model.config, name)
    if model.own_class() is TokenPose:  # not a prepared copy, whose layers are others
        words |= built_from_words(model.hub_config())
    return words


def model_of_file(path: str | Path) -> TokenPose:
    """The model that a file of weights is of, with fresh weights, wrapped and pruned as it was saved.

    Raises:
        CheckpointError: The file does not say what its weights are of, or says what cannot be built.
    """
    model = build_described(path, TokenPose.from_hub_config)
    model.name = name_in(read_metadata(path))
    return model


def joints_in(path: str | Path) -> dict[str, Any] | None:
    """The joints that a file of weights says it is of, as plain data; ``None`` where it says nothing.

    Raises:
        CheckpointError: What it says are no joints.
    """
    text = read_metadata(path).get("joints")
    return None if text is None else plain_object(text, path, "joints")


def check_joints(stored: Mapping[str, Any] | None, model: TokenPose, where: object) -> None:
    """Refuse weights of other joints than the model's, where both are told; else the model takes those of the weights.

    Raises:
        CheckpointError: The first joint that differs is named.
    """
    if stored is None:
        return
    if model.joints is None:
        model.joints = dict(stored)
        return
    try:
        theirs, own = JointSet.from_dict(stored), JointSet.from_dict(model.joints)
    except JointError as error:
        raise CheckpointError(f"{where}: {error}") from error
    at = first_difference(theirs.names, own.names)
    if at is not None:
        raise CheckpointError(
            f"{where}: the weights are of {other_joints(theirs, own, at)}. Take the joints that they were trained on; "
            "to train on others, start from them by model.weights and model.new_joints"
        )


def other_joints(theirs: JointSet, own: JointSet, at: int) -> str:
    """Where two joint sets differ, in words."""
    if len(theirs) != len(own):
        return f"{len(theirs)} joints ({theirs.name}), and {len(own)} ({own.name}) are asked for"
    return f"other joints: joint {at} is {theirs.names[at]!r} ({theirs.name}), and here {own.names[at]!r} ({own.name})"
