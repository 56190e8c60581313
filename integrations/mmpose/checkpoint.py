"""Read a checkpoint for mmpose's model; code runs from none but a file that is said to be trusted."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch

from cycledistill.recipes.errors import CheckpointError, PickledCodeError
from cycledistill.recipes.weights.files import check_is_file, read_weights, weights_in

_logger = logging.getLogger(__name__)

TRUST = (
    "mmengine's checkpoints hold pickled objects beside tensors, and reading them can run code. Add --trust-checkpoint "
    "if the file is your own, or take a file of weights alone, such as the weights.safetensors that training writes"
)


def read_checkpoint(source: str | Path, trusted: bool = False, map_location: Any = "cpu") -> dict[str, Any]:
    """What a checkpoint holds: its weights as ``state_dict``, under the names that they have in the file.

    Args:
        source: A file, ``.safetensors`` or PyTorch's, of weights alone or mmengine's; or an address, http or https.
        trusted: The file is your own: whoever can change it can run any program as you. Without it tensors alone are
            read, whatever the environment says.
        map_location: Where a trusted file's tensors go.

    Returns:
        ``state_dict``, and for a trusted checkpoint of mmengine the rest of it: ``meta``, ``optimizer``, ...

    Raises:
        CheckpointError: A missing, broken or foreign file, or one that needs trust.
    """
    path = _fetch(str(source)) if "://" in str(source) else Path(source)
    if trusted and path.suffix != ".safetensors":
        return _read_trusted(path, map_location)
    try:
        return {"state_dict": read_weights(path)}
    except PickledCodeError as error:
        raise CheckpointError(f"{path}: {TRUST}") from error


def _read_trusted(path: Path, map_location: Any) -> dict[str, Any]:
    check_is_file(path)
    _logger.warning("%s is read as trusted: it can run code", path)
    try:
        found = torch.load(path, map_location=map_location, weights_only=False)
    except Exception as error:  # archives and pickles raise many types
        raise CheckpointError(
            f"{path}: truncated, or no PyTorch checkpoint ({type(error).__name__}: {error})"
        ) from error
    whole = dict(found) if isinstance(found, Mapping) and "state_dict" in found else {}
    return whole | {"state_dict": weights_in(found, path)}


def _fetch(address: str) -> Path:
    """A file from the network, kept where PyTorch keeps those."""
    parts = urlparse(address)
    if parts.scheme not in ("http", "https"):
        raise CheckpointError(f"{address}: a file, or an address of http or https, is expected; download it first")
    path = Path(torch.hub.get_dir(), "checkpoints", Path(parts.path).name)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(address, str(path), progress=False)
        except OSError as error:
            raise CheckpointError(f"{address}: cannot be downloaded ({error})") from error
    return path
