"""Wrap a plain model again as the one was that was saved."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from cycledistill.cycle.handle import Scheme
from cycledistill.cycle.wrap import unwrap_cyclic, wrap_cyclic
from cycledistill.distill import read_scheme
from cycledistill.errors import StackError
from cycledistill.hourglass.wrap import unwrap_hourglass, wrap_hourglass
from cycledistill.plugin.handle import handle_of
from cycledistill.plugin.install import check_module
from cycledistill.plugin.plain import SAVED, code_in
from cycledistill.plugin.saved import read_wrapping
from cycledistill.prune.wrap import unwrap_pruning, wrap_pruning
from cycledistill.stack.given import Inputs
from cycledistill.versions import require

_logger = logging.getLogger(__name__)

Model = TypeVar("Model", bound=nn.Module)

_VERBS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "pruning": (wrap_pruning, unwrap_pruning),
    "hourglass": (wrap_hourglass, unwrap_hourglass),
    "cyclic": (wrap_cyclic, unwrap_cyclic),  # last: on blocks between which no frames are dropped
}


def rewrap(
    model: Model,
    folder: str | os.PathLike[str],
    *,
    distill: Scheme | Literal["saved"] = "saved",
    inputs: Inputs | None = None,
) -> Model:
    """Wrap a plain model again, in place, as the one was that was saved to ``folder``, and return it.

    Cycles, scheme, blocks, token groups, pruning and hourglass are those of ``cycledistill.json`` there, which
    :func:`save_wrapping` and the ``save_pretrained`` of wrapped Hugging Face models write; ``model.cyclic.exit`` is 1.
    The weights are the model's own, loaded as ever; those alone that a learned hourglass adds are read from the
    folder's safetensors files. No code that a file names is run.

    Args:
        model: The plain model: what ``from_pretrained`` returned, say.
        folder: A folder on this computer.
        distill: ``"saved"``, or another scheme, as for ``wrap_cyclic``; needed where the saved one is a function.
        inputs: What the trial of this call runs a copy of the model with, as for ``wrap_cyclic``.

    Raises:
        StackError: The model has no such blocks, is wrapped already, or what was saved has a function in it. The
            model is then as it was.
        ValueError: There is no such file, it is torn, or says what cannot be.

    Example:
        >>> model.save_pretrained("saved")          # a wrapped model of transformers
        >>> again = rewrap(AutoModelForImageClassification.from_pretrained("saved"), "saved")
        >>> again.cyclic
        Cyclic(vit.encoder.layer x12, cycles=2, exit=1)
    """
    check_module(model, "rewrap")
    found, file = read_wrapping(folder), Path(folder) / SAVED
    if "cyclic" in found and distill != "saved":
        found["cyclic"]["distill"] = None
    calls = {kind: _arguments(kind, found[kind], file) for kind in _VERBS if kind in found}
    if "cyclic" in calls and distill != "saved":
        calls["cyclic"]["distill"] = distill
    before, done = set(model.state_dict()), []
    try:
        for kind, arguments in calls.items():
            _VERBS[kind][0](model, **arguments, inputs=inputs)
            done.append(kind)
            _check_depth(model, kind, found[kind].get("depth"))
        _load_added(model, set(model.state_dict()) - before, Path(folder))
    except Exception as error:  # of plain data that is wrong in some way, anything
        for kind in reversed(done):
            _VERBS[kind][1](model)
        kind_of = StackError if isinstance(error, StackError) else ValueError
        raise kind_of(f"{file}, for this {type(model).__name__}: {error}") from error
    return model


def _arguments(kind: str, saved: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """What the verb of a kind takes, of plain data."""
    verb = _VERBS[kind][0]
    known = inspect.signature(verb).parameters.keys() - {"model", "inputs"}
    unknown = sorted(saved.keys() - known - {"depth"})
    if unknown or not isinstance(saved.get("blocks"), str):
        what = f"{', '.join(unknown)[:200]} are not known to {verb.__name__} here" if unknown else "blocks are missing"
        raise ValueError(f"{file}: {kind}: {what}")
    for name, value in saved.items():
        try:
            code = code_in(value)
        except RecursionError as error:
            raise ValueError(f"{file}: {kind}: {name} has brackets inside brackets, too deep") from error
        if code is not None:
            way = f"rewrap(model, folder, {name}={code})" if name == "distill" else f"{verb.__name__}(model, ...)"
            raise StackError(
                f"{file}: {name} was {code}, a function or a tensor, which a file does not hold, and nothing that it "
                f"names is run. Give it yourself: {way}"
            )
    arguments = {name: value for name, value in saved.items() if name != "depth"}
    try:
        if kind == "cyclic":
            arguments["distill"] = read_scheme(saved.get("distill"))
            tokens = saved.get("tokens")
            arguments["tokens"] = tokens and {name: slice(*bounds) for name, bounds in tokens.items()}
        if "query" in saved:
            arguments["query"] = slice(*saved["query"])
    except Exception as error:
        raise ValueError(f"{file}: {kind}: {error}") from error
    return arguments


def _check_depth(model: nn.Module, kind: str, depth: object) -> None:
    stack = handle_of(model, kind).stack
    if depth is not None and stack.depth != depth:
        raise StackError(f"{stack.path} has {stack.depth} blocks, and the model that was saved had {depth!r:.20}")


def _load_added(model: nn.Module, names: set[str], folder: Path) -> None:
    """Read the weights that wrapping added, which a plain model does not load."""
    if not names:
        return
    require("safetensors")
    from safetensors import safe_open

    own, found = model.state_dict(), set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored, torch.no_grad():
            for name in sorted(names.intersection(stored.keys())):
                tensor = stored.get_tensor(name)
                if tensor.shape != own[name].shape:
                    raise StackError(f"{file}: {name} is {tuple(tensor.shape)}, expected {tuple(own[name].shape)}")
                own[name].copy_(tensor)
                found.add(name)
    if names - found:
        _logger.warning(
            "%s: no safetensors file there holds %s, which the hourglass added to the model: they are as before "
            "training until you load them",
            folder,
            ", ".join(sorted(names - found)),
        )
