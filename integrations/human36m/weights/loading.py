"""Weights into lifting networks and out of them: ours and the authors' files."""

from __future__ import annotations

from pathlib import Path

from cycledistill.recipes.weights.files import of_file, read_weights, write_model

from ..models.lifter import Lifter
from .key_map import check_ours, from_official, is_ours


def load_lifter_weights(model: Lifter, path: str | Path, resize: bool = False) -> None:
    """Load a file of weights, ours or the authors', into a model, all of them or none.

    Args:
        model: A model of `create_lifter`, wrapped or not.
        path: ``.safetensors`` or a PyTorch checkpoint, as it is or inside ``model_pos`` or ``state_dict``.
        resize: Interpolate tables over frames that were learned for another clip length. MHFormer cannot.

    Raises:
        CheckpointError: A broken file, one with code inside, or weights that are not this model's, all named. The model
            is then as it was.

    Example:
        >>> model = create_lifter("motionbert", frames=81)
        >>> load_lifter_weights(model, "motionbert_243.bin", resize=True)
    """
    state = read_weights(path)
    with of_file(path):
        state = check_ours(state, model, resize) if is_ours(state) else from_official(state, model, resize)
    model.load_state_dict(state, strict=True)


save_lifter_weights = write_model
