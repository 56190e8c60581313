"""Names of the weights in mmpose's model and in the plain pose model, both ways."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.files import State

_PREFIXES = {"backbone.": "backbone.net.", "": "head.pose."}
"""Start of the names in the plain model, and in mmpose's."""


def to_mmpose(state: Mapping[str, Tensor]) -> State:
    """Weights of a plain pose model under the names of mmpose's model; every tensor gets one.

    Raises:
        CheckpointError: They are under mmpose's names already.

    Example:
        >>> estimator.load_state_dict(to_mmpose(model.state_dict()), strict=True)
    """
    if is_mmpose(state):
        raise CheckpointError("these weights are under mmpose's names already: those of a plain model are expected")
    return {
        _swap(name, "backbone." if name.startswith("backbone.") else "", to_theirs=True): tensor
        for name, tensor in state.items()
    }


def from_mmpose(state: Mapping[str, Tensor]) -> State:
    """Weights of mmpose's model under the names of the plain pose model; every tensor gets one.

    Raises:
        CheckpointError: Names that no model of ours has there, such as those of another head.

    Example:
        >>> create_pose_model("sdpose_t").load_state_dict(from_mmpose(estimator.state_dict()), strict=True)
    """
    found: State = {}
    for name, tensor in state.items():
        ours = next((ours for ours, theirs in _PREFIXES.items() if name.startswith(theirs)), None)
        if ours is None:
            raise CheckpointError(
                f"{name}: names that start with {' or '.join(_PREFIXES.values())} are expected, as mmpose's models "
                "with SDPoseHead and its backbones have them"
            )
        found[_swap(name, ours, to_theirs=False)] = tensor
    return found


def is_mmpose(state: Mapping[str, Tensor]) -> bool:
    """Whether weights are under the names of mmpose's model."""
    return any(name.startswith(_PREFIXES[""]) for name in state)


def _swap(name: str, ours: str, to_theirs: bool) -> str:
    before, after = (ours, _PREFIXES[ours]) if to_theirs else (_PREFIXES[ours], ours)
    return after + name.removeprefix(before)
