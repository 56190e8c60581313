"""Names of the weights in mmpose's model and in the plain pose model, both ways."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.files import State

_BACKBONE, _HEAD = "backbone.net.", "head.pose."
"""Start of mmpose's names of what the plain model calls ``backbone.*``, and of all else."""

_CRITERION = "head.criterion."
"""Start of the names of what the loss remembers, which is none of the model's weights."""


def to_mmpose(state: Mapping[str, Tensor]) -> State:
    """Weights of a plain pose model under the names of mmpose's model; every tensor gets one.

    Raises:
        CheckpointError: They are under mmpose's names already.

    Example:
        >>> estimator.load_state_dict(to_mmpose(model.state_dict()), strict=True)
    """
    if is_mmpose(state):
        raise CheckpointError("these weights are under mmpose's names already: those of a plain model are expected")
    theirs = {name: _HEAD + name for name in state}
    theirs |= {name: _BACKBONE + name.removeprefix("backbone.") for name in state if name.startswith("backbone.")}
    return {theirs[name]: tensor for name, tensor in state.items()}


def from_mmpose(state: Mapping[str, Tensor]) -> State:
    """Weights of mmpose's model under the names of the plain pose model; every tensor gets one but those of the loss.

    Raises:
        CheckpointError: Names that no model of ours has there, such as those of another head.

    Example:
        >>> create_pose_model("sdpose_t").load_state_dict(from_mmpose(estimator.state_dict()), strict=True)
    """
    found: State = {}
    for name, tensor in state.items():
        if name.startswith(_HEAD):
            found[name.removeprefix(_HEAD)] = tensor
        elif name.startswith(_BACKBONE):
            found[f"backbone.{name.removeprefix(_BACKBONE)}"] = tensor
        elif not name.startswith(_CRITERION):
            raise CheckpointError(
                f"{name}: names that start with {_BACKBONE} or {_HEAD} are expected, as mmpose's models with "
                "SDPoseHead and its backbones have them"
            )
    return found


def is_mmpose(state: Mapping[str, Tensor]) -> bool:
    """Whether weights are under the names of mmpose's model."""
    return any(name.startswith(_HEAD) for name in state)
