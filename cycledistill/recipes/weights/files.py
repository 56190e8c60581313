"""Read and write files of weights, without ever running code from them."""

from __future__ import annotations

import os
import pickle
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from cycledistill.recipes.errors import CheckpointError

State = dict[str, Tensor]

_WRAPPERS = ("state_dict", "model", "model_state_dict", "model_pos")
"""Under which name training checkpoints hold the weights."""

_FOREIGN = re.compile(r"(?:GLOBAL|Unsupported class) (\S+)")
"""What PyTorch's safe reader says about an object that it does not build."""


def read_weights(path: str | Path) -> State:
    """Read the tensors of a ``.safetensors`` file or of a PyTorch checkpoint.

    A training checkpoint is opened to its ``state_dict``, and the prefix ``module.`` of data-parallel models is taken
    off. PyTorch files are read with ``weights_only=True``.

    Args:
        path: The file.

    Returns:
        Name -> tensor, on the CPU.

    Raises:
        CheckpointError: No such file, a truncated or foreign file, code inside, or no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    found: Any = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for name in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
            break
    if not isinstance(found, Mapping) or not found or not all(isinstance(each, Tensor) for each in found.values()):
        inside = ", ".join(map(str, list(found)[:5])) if isinstance(found, Mapping) else type(found).__name__
        raise CheckpointError(
            f"{path}: a dict of tensors, or one that holds it as {', '.join(map(repr, _WRAPPERS))}, is expected; "
            f"found: {inside or 'nothing'}"
        )
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}


def read_metadata(path: str | Path) -> dict[str, str]:
    """What a safetensors file says about its weights; nothing for other files.

    Raises:
        CheckpointError: A truncated or foreign file.
    """
    if Path(path).suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file, or a truncated one: {error}") from error


def write_weights(state: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors beside ``path`` and rename, so that a full disk leaves an older file as it was.

    Args:
        state: Name -> tensor.
        path: ``.safetensors``, or ``.pth`` / ``.pt`` for a PyTorch file.
        metadata: Words to store in a safetensors file; a PyTorch file holds tensors alone.

    Raises:
        CheckpointError: Another suffix, or no such folder.
        OSError: The file cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise CheckpointError(f"{path}: a name ending in .safetensors, .pth or .pt is expected")
    if not path.parent.is_dir():
        raise CheckpointError(f"{path}: there is no folder {path.parent}")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.suffix == ".safetensors":
            save_file(tensors, beside, metadata=dict(metadata or {}))
        else:
            torch.save(tensors, beside)
        os.replace(beside, path)
    except SafetensorError as error:
        raise OSError(f"{path}: cannot be written: {error}") from error
    finally:
        beside.unlink(missing_ok=True)


def _read_safetensors(path: Path) -> State:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: broken or truncated, or no safetensors file ({error})") from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # PyTorch's message advises weights_only=False, which ours must not repeat.
        named = _FOREIGN.search(str(error))
        if named is None:
            raise CheckpointError(f"{path}: broken, or no PyTorch checkpoint") from error
        raise CheckpointError(
            f"{path}: holds a pickled {named[1]} beside tensors, which could run code, and is not loaded. If you trust "
            "its source, save the weights alone from the code that made it: "
            'torch.save(checkpoint["state_dict"], path)'
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, IndexError, struct.error) as error:
        raise CheckpointError(f"{path}: truncated, or no PyTorch checkpoint ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
