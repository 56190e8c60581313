"""What a file of weights says of the network they are of: its config, as JSON, beside the tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cycledistill.recipes.weights.files import read_metadata


def network_metadata(config: Any, name: str | None = None) -> dict[str, str]:
    """The words for `write_weights`.

    Args:
        config: The network's, a dataclass of plain values.
        name: What the model is called, to be stored too.
    """
    words = {"format": "cycledistill", "config": json.dumps(asdict(config))}
    return words | ({} if name is None else {"model": name})


def stored_network(path: str | Path) -> dict[str, Any]:
    """The network's config that a safetensors file of ours holds; empty for any other file.

    Raises:
        CheckpointError: A truncated or foreign file.
    """
    return dict(json.loads(read_metadata(path).get("config", "{}")))


def other_network(stored: Mapping[str, Any], config: Any, names: Sequence[str]) -> str:
    """In which fields weights of the same shapes are of another network than ``config``; empty where in none.

    Args:
        stored: The config that was stored with the weights; a field that it lacks is not compared.
        config: That of the model, a dataclass.
        names: The fields that the shapes do not show.

    Example:
        >>> other_network({"heads": 4}, TokenPoseConfig(), ["heads", "scale"])
        'heads=4 there, 8 here'
    """
    own = asdict(config)
    return "; ".join(
        f"{name}={stored[name]!r} there, {own[name]!r} here"
        for name in names
        if name in stored and stored[name] != own[name]
    )
