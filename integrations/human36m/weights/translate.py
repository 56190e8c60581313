"""Weights of the authors' files in our names, and back, strictly: every tensor is accounted for."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.fitting import mismatch

from ..models.lifter import Lifter, resize_positions
from .official import State, join, official_names, split

_OVER_FRAMES = ("temporal_pos", "prune.0.pos", "recover.query")
"""What holds one entry for each frame, or for each kept one."""

Shapes = Mapping[str, tuple[int, ...]]


def from_official(state: Mapping[str, Tensor], model: Lifter, resize: bool = False) -> State:
    """Weights under the names of the authors' code, under ours.

    Args:
        state: Name -> tensor, as `read_weights` returns them.
        model: The model they are for; it stays as it is.
        resize: Interpolate tables over frames that were learned for another clip length, linearly along time.

    Raises:
        CheckpointError: Tensors missing, unknown or of another shape, all of them named; tables for another clip length
            without ``resize``, or of a network whose other weights depend on it.
        ValueError: A model that no official file holds.

    Example:
        >>> model = create_lifter("mixste", frames=27, dim=32)
        >>> sorted(from_official(to_official(model.state_dict(), model), model)) == sorted(model.state_dict())
        True
    """
    names, ours = official_names(model), model.state_dict()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, tensor in ours.items():
        shapes |= {theirs: tuple(part.shape) for theirs, part in split(name, tensor, names[name]).items()}
    tables = [theirs for name in ours if name.endswith(_OVER_FRAMES) for theirs in names[name]]
    state = _fitted(state, shapes, tables, resize and model.resizes, model)
    return {name: join([state[theirs] for theirs in names[name]], ours, name) for name in ours}


def to_official(state: Mapping[str, Tensor], model: Lifter) -> State:
    """Weights under our names, under those of the authors' code.

    Args:
        state: ``state_dict()`` of such a model.
        model: The model they are of.

    Raises:
        CheckpointError: Tensors missing, unknown or of another shape, all of them named.
        ValueError: A model that no official file holds.
    """
    names = official_names(model)
    state = check_ours(state, model)
    theirs: State = {}
    for name, official in names.items():
        theirs |= split(name, state[name], official)
    return theirs


def check_ours(state: Mapping[str, Tensor], model: Lifter, resize: bool = False) -> State:
    """Weights under our names that are, tensor by tensor, those of a model.

    Args:
        state: Name -> tensor.
        model: The model.
        resize: As in `from_official`.

    Raises:
        CheckpointError: Tensors missing, unknown or of another shape, all of them named.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tables = [name for name in shapes if name.endswith(_OVER_FRAMES)]
    return _fitted(state, shapes, tables, resize and model.resizes, model)


def is_ours(state: Mapping[str, Tensor]) -> bool:
    """Whether weights are under our names rather than under official ones."""
    return any(name.startswith("levels.") for name in state)


def _fitted(state: Mapping[str, Tensor], shapes: Shapes, tables: list[str], resize: bool, model: Lifter) -> State:
    """``state`` with its tables resized, if allowed, and nothing missing, unknown or of another shape."""
    off = [name for name in tables if name in state and _is_longer_or_shorter(state[name], shapes[name])]
    if off and not resize:
        told = ", ".join(f"{name} of {state[name].shape[1]} entries, expected {shapes[name][1]}" for name in off)
        can = "pass resize=True (--resize) to interpolate them, or " if model.resizes else ""
        raise CheckpointError(
            f"the weights were learned for another clip length than this {type(model).__name__}'s: {told}; {can}build "
            "the model with frames=... (and keep=...) of the file"
        )
    fitted = {**state, **{name: resize_positions(state[name], shapes[name][1]) for name in off}}
    wrong = mismatch(fitted, shapes)
    if wrong:
        raise CheckpointError(
            f"the weights are not those of this {type(model).__name__}, {wrong}; check the model's name and options "
            "(list_lifters())"
        )
    return fitted


def _is_longer_or_shorter(tensor: Tensor, expected: tuple[int, ...]) -> bool:
    shape = tuple(tensor.shape)
    return len(shape) == len(expected) and shape[1] != expected[1] and shape[2:] == expected[2:]
