"""Weights into multi-view models and out of them: ours and the authors' files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cycledistill.integrations.coco.weights.key_map import is_ours
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.files import read_metadata, read_weights, write_weights

from .config import MultiViewConfig
from .key_map import check_ours, multiview_from_official
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
    try:
        if is_ours(state):
            check_ours(state, config)
            _check_stored(stored_config(path), config)
        else:
            state = multiview_from_official(state, config)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    model.load_state_dict(state, strict=True)


def save_multiview_weights(model: MultiViewPPT, path: str | Path) -> None:
    """Write a model's weights; a safetensors file also holds its config, as JSON.

    Args:
        model: A model of `create_multiview`, wrapped or not.
        path: ``.safetensors``, ``.pth`` or ``.pt``.

    Raises:
        CheckpointError: Another suffix, or no such folder.
    """
    write_weights(model.state_dict(), path, metadata(model.config))


def metadata(config: MultiViewConfig) -> dict[str, str]:
    """What a safetensors file of ours says about its weights: the network's config and the model's name."""
    return {"format": "cycledistill", "config": json.dumps(asdict(config)), "model": MODEL}


def stored_config(path: str | Path) -> dict[str, Any]:
    """The network's config that a safetensors file of ours holds; empty for any other file."""
    return dict(json.loads(read_metadata(path).get("config", "{}")))


def _check_stored(stored: Mapping[str, Any], config: MultiViewConfig) -> None:
    """Refuse weights that fit in shape and are of another network."""
    own = asdict(config)
    other = [
        f"{name}={stored[name]!r} there, {own[name]!r} here"
        for name in ("heads", "backbone", "fused_layers")
        if name in stored and stored[name] != own[name]
    ]
    if other:
        raise CheckpointError(
            f"the weights fit in shape but are of another network ({'; '.join(other)}), and would predict something "
            "else: build the model with the options of the file"
        )
