"""Read and write files of weights, without ever running code from them."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
import tarfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cycledistill.files import atomic_write, os_errors
from cycledistill.metadata.model import words_of
from cycledistill.metadata.read import FORMATS, safetensors_words
from cycledistill.recipes.errors import CheckpointError, PickledCodeError
from cycledistill.recipes.reading.guard import SAFETENSORS, TORCH, reading
from cycledistill.recipes.reading.texts import parse_json
from cycledistill.recipes.weights.fitting import shorten
from cycledistill.recipes.weights.stand_ins import StandIn, stand_ins
from cycledistill.versions import made_with

State = dict[str, Tensor]

_WRAPPERS = ("state_dict", "model", "model_state_dict", "model_pos")
"""Under which name training checkpoints hold the weights."""

_PREFIXES = ("module.", "_orig_mod.")
"""What data-parallel and compiled models put before each of their names."""

_FOREIGN = re.compile(r"(?:GLOBAL|Unsupported class) (\S+)")
"""What PyTorch's safe reader says about an object that it does not build."""


def read_weights(path: str | Path) -> State:
    """Read the tensors of a ``.safetensors`` file or of a PyTorch checkpoint, whoever wrote it; no code runs.

    A training checkpoint is opened to its weights (see `weights_in`). PyTorch files are read with
    ``weights_only=True``; of the numbers and arguments that trainers write beside the weights nothing is made
    (`stand_ins`).

    Args:
        path: The file.

    Returns:
        Name -> tensor, on the CPU.

    Raises:
        CheckpointError: No such file, a truncated or foreign file, code inside (`PickledCodeError`), or no tensors.

    Example:
        >>> write_weights({"a": torch.ones(2)}, "a.safetensors")
        >>> read_weights("a.safetensors")
        {'a': tensor([1., 1.])}
    """
    path = Path(path)
    check_is_file(path)
    refuse_exported(path)
    if path.suffix == ".safetensors":
        return weights_in(_read_safetensors(path), path)
    with stand_ins():
        return weights_in(read_torch(path), path)


def weights_in(found: Any, path: str | Path) -> State:
    """The weights in what a file held, under the plain model's names.

    Example:
        >>> weights_in({"epoch": 3, "state_dict": {"module.a": torch.ones(1)}}, "a.pth")
        {'a': tensor([1.])}
    """
    for name in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found, path = found[name], f"{path}, {name!r}"
            break
    if not isinstance(found, Mapping) or not found or not all(isinstance(each, Tensor) for each in found.values()):
        raise CheckpointError(
            f"{path}: a dict of tensors, or one that holds it as {', '.join(map(repr, _WRAPPERS))}, is expected; "
            f"found: {_contents(found)}"
        )
    state = dict(found)
    for name, tensor in state.items():
        if not isinstance(name, str) or tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            raise CheckpointError(
                f"{path}: {name!r:.200} is a tensor of {tensor.layout}, {tensor.dtype}, on {tensor.device}: names that "
                "are text, and plain dense tensors, are expected"
            )
    while prefix := next((each for each in _PREFIXES if all(str(name).startswith(each) for name in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _contents(found: Any) -> str:
    """What a file holds, by its keys, those first that are no tensor and could hold the weights."""
    if not isinstance(found, Mapping):
        return _described(found)
    others = sorted(
        (name for name in found if not isinstance(found[name], Tensor)), key=lambda name: -_held(found[name])
    )
    tensors = len(found) - len(others)
    told = [f"{name!s:.80} ({_described(found[name])})" for name in others]
    return shorten([*told, *([f"{tensors} tensors"] if tensors else [])]) or "nothing"


def _held(value: Any) -> int:
    return sum(isinstance(each, Tensor) for each in value.values()) if isinstance(value, Mapping) else 0


def _described(value: Any) -> str:
    count = _held(value)
    if count and count == len(value):
        return f"a dict of {count} tensors, which is to be saved alone, or under one of these names"
    return repr(value) if isinstance(value, StandIn) else type(value).__name__


def refuse_exported(path: Path) -> None:
    """Refuse a file of a graph, whose weights are no longer under the model's names."""
    if path.suffix in (".onnx", ".pt2"):
        raise CheckpointError(
            f"{path} is {FORMATS[path.suffix]}, exported for another runtime, and its weights are not loaded: give the "
            "run that it was made of, or a .safetensors file"
        )


def read_metadata(path: str | Path) -> dict[str, str]:
    """What a safetensors file says about its weights; nothing for other files.

    Raises:
        CheckpointError: A truncated or foreign file.
    """
    if Path(path).suffix != ".safetensors":
        return {}
    with reading(path, SAFETENSORS, CheckpointError):
        return safetensors_words(Path(path))


def network_metadata(config: Any, name: str | None = None) -> dict[str, str]:
    """What a safetensors file of a model built from a config says about its weights."""
    words = {
        "format": "cycledistill",
        "config": json.dumps(dataclasses.asdict(config)),
        "config_class": type(config).__name__,  # says whose the file is
        "versions": json.dumps(made_with()),
    }
    return words | ({} if name is None else {"model": name})


def stored_network(path: str | Path) -> dict[str, Any]:
    """The network's config that `network_metadata` put into a file; empty for any other file.

    Raises:
        CheckpointError: A truncated file, or one of ours whose config is no JSON object.
    """
    words = read_metadata(path)
    if words.get("format") != "cycledistill":  # what others call config is theirs
        return {}
    try:
        config = parse_json(words.get("config", "{}"), path, CheckpointError)
    except CheckpointError:
        config = None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: its config is expected to be a JSON object; found: {words['config'][:300]!r}")
    return config


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
    # clones: safetensors refuses tensors that share memory
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}

    def write(file: Path) -> None:
        with os_errors(SafetensorError):
            if file.suffix == ".safetensors":
                save_file(tensors, file, metadata=dict(metadata or {}))
            else:
                write_torch(tensors, file)

    atomic_write(path, write)


def write_torch(value: Any, file: Path) -> None:
    """``torch.save`` to a file, with an ``OSError`` where that cannot be written, a full disk for instance."""
    with os_errors(RuntimeError):  # PyTorch's own for that, and for nothing else here
        torch.save(value, file)


def write_model(model: Any, path: str | Path, name: str | None = None) -> None:
    """Write a model's weights; a safetensors file also holds its network's config, as JSON.

    Args:
        model: A model whose ``config`` describes its network, wrapped or not.
        path: ``.safetensors``, ``.pth`` or ``.pt``.
        name: Its name in the registry, to be stored too.

    Raises:
        CheckpointError: Another suffix, or no such folder.
    """
    write_weights(model.state_dict(), path, words_of(model) | network_metadata(model.config, name))


@contextmanager
def of_file(path: str | Path) -> Iterator[None]:
    """Within a ``with`` block, a ``CheckpointError`` about weights says first which file they are of.

    Example:
        >>> with of_file("theirs.pth"):
        ...     converted = from_official(state, config)
    """
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def check_is_file(path: Path) -> None:
    """Refuse a path without a file."""
    if not path.is_file():
        raise CheckpointError(f"{path}: {'a folder; a file is expected' if path.is_dir() else 'there is no such file'}")


def read_torch(path: Path) -> Any:
    """What ``torch.save`` wrote to a file, tensors and plain values, on the CPU; nothing that code would have to build.

    Raises:
        CheckpointError: No such file, a truncated or foreign one, or one that holds code (`PickledCodeError`).
    """
    check_is_file(path)
    form = _code_in(path)
    if form is not None:
        raise PickledCodeError(
            f"{path} is {form}, which could run code, and is not loaded. If you trust its source, save the weights "
            "alone from the code that made it: torch.save(model.state_dict(), path)"
        )
    try:
        with warnings.catch_warnings(), reading(path, TORCH, CheckpointError):
            warnings.simplefilter("ignore")  # of a damaged file they say nothing that its refusal does not
            return _load(path)
    except _UnsafeError as error:
        # Nothing of PyTorch's own message is told, nor in a traceback: it advises weights_only=False.
        named = _FOREIGN.search(str(error))
        if named is None and not zipfile.is_zipfile(path):
            raise CheckpointError(f"{path} is broken, or no PyTorch checkpoint") from None
        raise PickledCodeError(
            f"{path} holds a pickled {named[1][:100] if named else 'object'} beside tensors, which could run code, and "
            "is not loaded. If you trust its source, save the weights alone from the code that made it"
            f"{_how_alone(path)}"
        ) from None


def _how_alone(path: Path) -> str:
    """How the weights of a file that is refused are saved alone, by the keys that are in it; all its names stand in."""
    keys: list[Any] = []
    with suppress(Exception):  # best effort: the file is refused already
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        with stand_ins(named):
            keys = list(torch.load(path, map_location="meta", weights_only=True))
    held = [name for name in _WRAPPERS if name in keys]
    if held or not keys:
        return ": torch.save(" + (f"checkpoint[{held[0]!r}]" if held else "model.state_dict()") + ", path)"
    return f"; the file has {shorten([f'{name!s:.80}' for name in keys])}"


class _UnsafeError(CheckpointError):
    """What PyTorch's safe reader does not build, in its own words."""


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _UnsafeError(str(error)) from None


def _code_in(path: Path) -> str | None:
    """What a file is that PyTorch reads by running it alone, and advises to do so; None of any other."""
    with reading(path, TORCH, CheckpointError):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                scripted = any(name.endswith("/constants.pkl") for name in archive.namelist())
            return "a TorchScript program" if scripted else None
        return "of PyTorch's first format, a tar archive" if tarfile.is_tarfile(path) else None


def _read_safetensors(path: Path) -> State:
    with reading(path, SAFETENSORS, CheckpointError):
        return load_file(path)
