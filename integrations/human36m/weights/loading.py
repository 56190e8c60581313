"""Weights into lifting networks and out of them: ours and the authors' files, with what their numbers mean."""

from __future__ import annotations

import logging
from pathlib import Path

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.files import (
    State,
    of_file,
    read_metadata,
    read_weights,
    write_weights,
)

from ..models.convention import Convention, read_convention
from ..models.lifter import Lifter
from .described import words_of
from .key_map import check_ours, from_official, is_ours

_logger = logging.getLogger(__name__)


def load_lifter_weights(model: Lifter, path: str | Path, resize: bool = False) -> None:
    """Load a file of weights, ours or the authors', into a model, all of them or none.

    ``model.convention`` becomes what the file says of its unit and input; of an authors' file, what they trained.

    Args:
        model: A model of `create_lifter`, wrapped or not.
        path: ``.safetensors`` or a PyTorch checkpoint, as it is or inside ``model_pos`` or ``state_dict``.
        resize: Interpolate tables over frames that were learned for another clip length. MHFormer cannot.

    Raises:
        CheckpointError: A broken file, one with code inside, or weights that are not this model's, all named; a unit or
            an input that is not known here. The model is then as it was.

    Example:
        >>> model = create_lifter("motionbert", frames=81)
        >>> load_lifter_weights(model, "motionbert_243.bin", resize=True)
        >>> model.convention.unit
        'picture'
    """
    state = read_weights(path)
    convention = stored_convention(path)
    with of_file(path):
        ours = is_ours(state)
        state = check_ours(state, model, resize) if ours else from_official(state, model, resize)
    if convention is None:
        convention = Convention() if ours else model.official
        if ours and model.official.unit != convention.unit:
            _logger.warning(
                "%s does not say in which unit its poses are; they are taken for %s, as models trained here give. If "
                "it was converted from the authors' file, convert that again",
                path,
                convention.unit,
            )
    model.load_state_dict(state, strict=True)
    model.convention = convention


def stored_convention(path: str | Path) -> Convention | None:
    """What a file of weights says of its unit and input; ``None`` where it says nothing.

    Raises:
        CheckpointError: A broken file, or a convention that is not known here.
    """
    return read_convention(read_metadata(path), path)


def save_lifter_weights(model: Lifter, path: str | Path, name: str | None = None) -> None:
    """Write a model's weights; a safetensors file also holds what the model is built from and its convention.

    `load_trained` of ``trained.py``, and ``cycledistill predict``, then take the file alone.

    Args:
        model: A lifting model, wrapped or not.
        path: ``.safetensors``; or ``.pth`` or ``.pt``, of models trained here.
        name: Its name in the registry, to be stored too.

    Raises:
        CheckpointError: Another suffix, no such folder, or a PyTorch file for weights whose poses are not in metres.
    """
    write_lifter_state(model.state_dict(), model, model.convention, path, name)


def write_lifter_state(state: State, model: Lifter, convention: Convention, path: str | Path, name: str | None) -> None:
    """Write weights under our names with what describes them, as `save_lifter_weights` does of a model's own."""
    if Path(path).suffix in (".pth", ".pt") and convention.unit != Convention().unit:
        raise CheckpointError(
            f"{path}: a PyTorch file holds tensors alone, and not that poses are in the unit {convention.unit!r}; "
            "write a .safetensors file"
        )
    write_weights(state, path, words_of(model, convention, name))
