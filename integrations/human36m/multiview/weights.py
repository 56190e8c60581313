"""Weights into multi-view models and out of them: ours and the authors' files."""

from __future__ import annotations

from pathlib import Path

from cycledistill.integrations.coco.weights.key_map import is_ours
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.files import of_file, read_weights, stored_network, write_model
from cycledistill.recipes.weights.fitting import other_network

from .key_map import check_multiview, multiview_from_official
from .model import MultiViewPPT

MODEL = "multiview_ppt"
"""What files and commands call the model."""


def load_multiview_weights(model: MultiViewPPT, path: str | Path) -> None:
    """Load a file of weights, ours or the authors', into a model, all of them or none.

    Args:
        model: A model of `create_multiview`, wrapped or not.
        path: ``.safetensors`` or a PyTorch checkpoint.

    Raises:
        CheckpointError: A broken file, one with code inside, or weights that are not this model's, all named. The model
            is then as it was.

    Example:
        >>> model = create_multiview()
        >>> load_multiview_weights(model, "multiview_ppt.safetensors")
    """
    state, config = read_weights(path), model.config
    with of_file(path):
        if is_ours(state):
            check_multiview(state, config)
            other = other_network(stored_network(path), config, ("heads", "backbone", "fused_layers"))
            if other:
                raise CheckpointError(
                    f"the weights fit in shape but are of another network ({other}), and would predict something "
                    "else: build the model with the options of the file"
                )
        else:
            state = multiview_from_official(state, config)
    model.load_state_dict(state, strict=True)


def save_multiview_weights(model: MultiViewPPT, path: str | Path) -> None:
    """Write a model's weights under the name `MODEL`, as `write_model` does."""
    write_model(model, path, MODEL)
