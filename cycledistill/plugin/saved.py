"""How a model was wrapped, in a file of plain data beside its weights, from which `rewrap` wraps it again."""

from __future__ import annotations

import inspect
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cycledistill.errors import StackError
from cycledistill.files import atomic_write
from cycledistill.plugin.beside import WEIGHTS, noted, speaks_of, stamps, weights_files
from cycledistill.plugin.handle import KINDS, handle_of
from cycledistill.plugin.install import check_module
from cycledistill.plugin.plain import SAVED
from cycledistill.plugin.torch_private import compiled_from
from cycledistill.versions import made_with, require

_logger = logging.getLogger(__name__)

_ABOUT = {"model", "versions", WEIGHTS}
_SAVES = "_saves_wrapping"


def save_wrapping(model: nn.Module, folder: str | os.PathLike[str]) -> Path:
    """Write how a model is wrapped, cycles, scheme, pruning, hourglass, beside its weights, as ``cycledistill.json``.

    The weights are saved as ever: they are the plain model's, and load into it. The ``save_pretrained`` of wrapped
    Hugging Face models, and so ``Trainer``, writes this file too. It is plain data: of a function there is the name.
    It holds the SHA-256 of the safetensors files there whose tensors are the model's, bit for bit: ``cycledistill
    report`` tells it of those alone, and `rewrap` warns where they have changed since. Save the weights first.

    Args:
        model: A wrapped model.
        folder: Where its weights are; made if need be.

    Returns:
        The file.

    Raises:
        StackError: The model is not wrapped.
        OSError: The file cannot be written.

    Example:
        >>> timm.models.save_for_hf(model, "saved")
        >>> save_wrapping(model, "saved")
        PosixPath('saved/cycledistill.json')
        >>> again = rewrap(timm.create_model("local-dir:saved"), "saved")
    """
    return _write(model, folder, None)


def _write(model: nn.Module, folder: str | os.PathLike[str], weights: Iterable[Path] | None) -> Path:
    """As `save_wrapping`; ``weights`` are files that are known to hold the model's."""
    check_module(model, "save_wrapping")
    found = {kind: handle.described(model) for kind in KINDS if (handle := handle_of(model, kind)) is not None}
    if not found:
        raise StackError(
            f"this {type(model).__name__} is not wrapped, so there is nothing to save beside its weights; of a "
            "data-parallel wrapper, give the model inside, model.module"
        )
    file = Path(folder) / SAVED
    beside = noted(_own_weights(model, Path(folder)) if weights is None else weights)
    about = {"model": class_of(model), "versions": made_with(), **({WEIGHTS: beside} if beside else {})}
    text = json.dumps({**about, **found}, indent=1) + "\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, lambda new: new.write_text(text, encoding="utf-8"))
    return file


def _own_weights(model: nn.Module, folder: Path) -> Iterator[Path]:
    """Safetensors files of which every tensor is one of the model's; libraries save some under other names."""
    files = weights_files(folder)
    if not files:
        return
    require("safetensors")
    from safetensors import safe_open

    own: dict[tuple[torch.Size, torch.dtype], list[Tensor]] = {}
    for each in (*model.parameters(), *model.buffers()):  # no state_dict(): of sharded models it waits for others
        tensor = each.detach()
        if type(tensor) is Tensor and not tensor.is_meta:
            own.setdefault((tensor.shape, tensor.dtype), []).append(tensor.cpu())
    for file in files:
        try:
            with safe_open(file, framework="pt") as stored:
                tensors = map(stored.get_tensor, stored.keys())
                same = all(any(torch.equal(x, each) for each in own.get((x.shape, x.dtype), ())) for x in tensors)
        except Exception as error:  # of a damaged file, whatever comes
            _logger.debug("%s is not read: %s", file, error)
            continue
        if same:
            yield file


def weights_kept(folder: str | os.PathLike[str]) -> bool | None:
    """Whether the weights in a folder are those that were saved with its file; ``None`` where that notes none.

    Raises:
        ValueError: As `read_wrapping`.
        OSError: They cannot be read.
    """
    found = _read_file(folder)
    told = found.get(WEIGHTS)
    if not isinstance(told, dict) or not told:
        return None
    files = {file.name: file for file in weights_files(Path(folder))}
    return all(name in files and speaks_of(found, files[name]) for name in told)


def read_wrapping(folder: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """What `save_wrapping` wrote: the arguments of each verb, by the kind of its handle.

    Raises:
        ValueError: There is no such folder or no such file in it, or it is torn, or another program's, or a file.
    """
    return {kind: each for kind, each in _read_file(folder).items() if kind in KINDS}


def saved_class(folder: str | os.PathLike[str]) -> str | None:
    """The class of the model that was saved, for people: it may have another name by now."""
    name = _read_file(folder).get("model")
    return name if isinstance(name, str) else None


def class_of(model: nn.Module) -> str:
    """The class that a file names, of a compiled model that of the one it was made from."""
    return type(compiled_from(model)).__name__


def _read_file(folder: str | os.PathLike[str]) -> dict[str, Any]:
    file = Path(folder) / SAVED
    if Path(folder).is_file():
        raise ValueError(f"{os.fspath(folder)}: a file; give its folder, {os.fspath(Path(folder).parent)}")
    if not Path(folder).is_dir():
        raise ValueError(
            f"{os.fspath(folder)}: there is no such folder. Give the one that the model was saved to; of a model on "
            "the Hugging Face hub, what huggingface_hub.snapshot_download(name) returns"
        )
    if not file.is_file():
        raise ValueError(
            f"{os.fspath(folder)} holds no {SAVED}, which says how a model was wrapped: save_wrapping(model, folder) "
            "writes it, and the save_pretrained of a wrapped Hugging Face model. Missing are blocks, cycles and "
            "distill: if you know them, wrap_cyclic(model, cycles, distill, blocks=...)"
        )
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is torn, or no JSON: {error}") from error
    wrapped = {kind: found[kind] for kind in KINDS if kind in found} if isinstance(found, dict) else {}
    if not wrapped or not all(isinstance(each, dict) for each in wrapped.values()):
        raise ValueError(f"{file} is not of this library: an object that holds {' or '.join(KINDS)} is expected")
    unknown = sorted(found.keys() - KINDS.keys() - _ABOUT)
    if unknown:
        raise ValueError(f"{file} holds {', '.join(unknown)[:200]}, which this version does not know: upgrade")
    return found


def saving_of(below: type) -> dict[str, Any]:
    """A ``save_pretrained`` that writes how the model is wrapped too, where the class below has one that does not.

    Models of this library have: their config says it.
    """
    save = getattr(below, "save_pretrained", None)
    if not inspect.isfunction(save) or hasattr(save, _SAVES) or hasattr(below, "hub_config"):
        return {}
    return {"save_pretrained": _with_wrapping(save)}


def _with_wrapping(save: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(save)
    def save_pretrained(self: Any, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        before = stamps(save_directory)
        saved = save(self, save_directory, *args, **kwargs)
        # Other processes, and parts of a wrapped model, have nothing to write; a file in its place has been refused.
        if os.path.isdir(save_directory) and kwargs.get("is_main_process", True):
            if any(handle_of(self, kind) is not None for kind in KINDS):
                now = stamps(save_directory)
                _write(self, save_directory, [file for file in now if now[file] != before.get(file)])
        return saved

    setattr(save_pretrained, _SAVES, True)
    return save_pretrained
