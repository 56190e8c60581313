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
from cycledistill.errors import StackError
from cycledistill.hourglass.wrap import unwrap_hourglass, wrap_hourglass
from cycledistill.plugin.handle import handle_of
from cycledistill.plugin.install import check_module
from cycledistill.plugin.plain import CODE, SAVED, code_in
from cycledistill.plugin.saved import class_of, read_wrapping, saved_class, weights_kept
from cycledistill.prune.wrap import unwrap_pruning, wrap_pruning
from cycledistill.saved.scheme import read_scheme, scheme_call
from cycledistill.stack.given import Inputs
from cycledistill.versions import require

_logger = logging.getLogger(__name__)

Model = TypeVar("Model", bound=nn.Module)

_VERBS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "pruning": (wrap_pruning, unwrap_pruning),
    "hourglass": (wrap_hourglass, unwrap_hourglass),
    "cyclic": (wrap_cyclic, unwrap_cyclic),  # last: on blocks between which no frames are dropped
}

_OPTIONAL = {"heads", "width"}
"""Of a learned hourglass alone; every other argument of a verb is always saved."""


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
        StackError: The file says what cannot be, lacks something or has a function in it; or the model has no such
            blocks, or is wrapped already. The model is then as it was.
        ValueError: There is no such folder or file, it is torn, or another program's. (A `StackError` is one too.)

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
    _compare_classes(model, folder)
    if weights_kept(folder) is False:
        _logger.warning(
            "%s was written for other weights than those that lie there now: another model was saved to the folder "
            "since, and how that one was wrapped is not known",
            file,
        )
    calls = {kind: _arguments(kind, found[kind], file) for kind in _VERBS if kind in found}
    if "cyclic" in calls and distill != "saved":
        calls["cyclic"]["distill"] = distill
    before, done = set(model.state_dict()), []
    try:
        for kind, arguments in calls.items():
            _VERBS[kind][0](model, **arguments, inputs=inputs)
            done.append(kind)
            _check_depth(model, kind, found[kind]["depth"])
        _load_added(model, set(model.state_dict()) - before, Path(folder))
    except Exception as error:  # of plain data that is wrong in some way, anything
        for kind in reversed(done):
            _VERBS[kind][1](model)
        raise StackError(f"{file}, for this {type(model).__name__}: {error}") from error
    return model


def _compare_classes(model: nn.Module, folder: str | os.PathLike[str]) -> None:
    """A subclass, or a class with a new name, is as good as the one that was saved: no more than a warning."""
    saved, given = saved_class(folder), class_of(model)
    if saved is not None and saved != given:
        _logger.warning("%s: the model saved was of class %.80r, this is a %s", Path(folder) / SAVED, saved, given)


def _arguments(kind: str, saved: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """What the verb of a kind takes, of plain data."""
    verb = _VERBS[kind][0]
    known = inspect.signature(verb).parameters.keys() - {"model", "inputs"} | {"depth"}
    unknown, missing = sorted(saved.keys() - known), sorted(known - _OPTIONAL - saved.keys())
    if unknown:
        raise StackError(f"{file}: {kind}: {', '.join(map(repr, unknown)):.200} are not known to {verb.__name__} here")
    if missing:
        raise StackError(f"{file}: {kind}: {', '.join(missing)} are missing, which save_wrapping always writes")
    if not isinstance(saved["blocks"], str):
        raise StackError(f"{file}: {kind}: blocks={saved['blocks']!r:.80}: the path of the blocks is expected")
    if not isinstance(saved["depth"], int) or isinstance(saved["depth"], bool):
        raise StackError(f"{file}: {kind}: depth={saved['depth']!r:.80}: a whole number is expected")
    arguments = {name: value for name, value in saved.items() if name != "depth"}
    try:
        for name, value in arguments.items():
            _refuse_code(name, value, verb.__name__)
        if kind == "cyclic":
            arguments["distill"] = read_scheme(saved["distill"])
            arguments["tokens"] = _groups(saved["tokens"])
        if "query" in saved:
            arguments["query"] = _slice("query", saved["query"])
    except RecursionError as error:
        raise StackError(f"{file}: {kind} has brackets inside brackets, too deep") from error
    except Exception as error:
        raise StackError(f"{file}: {kind}: {error}") from error
    return arguments


def _refuse_code(name: str, value: Any, verb: str) -> None:
    """What a file cannot hold is asked for; its name in the file is shown, never as something to run."""
    code = code_in(value)
    if code is None:
        return
    path, way = name, f"{verb}(model, ...)"
    if name == "distill":
        way = f"rewrap(model, folder, distill={scheme_call(value, 'your_function')})"
        fields = [each for each in value if each != CODE and code_in(value[each]) is not None]
        path = ", ".join(f"distill.{each}" for each in fields) or name
    raise StackError(
        f"{path} was {code!r:.80}, a function or a tensor, which a file does not hold, and nothing that it names is "
        f"run. Give it yourself: {way}"
    )


def _groups(tokens: Any) -> dict[str, slice] | None:
    if tokens is None:
        return None
    if not isinstance(tokens, Mapping) or not tokens:
        raise StackError(f"tokens={tokens!r:.80}: names, each with the two ends of a slice, are expected, or null")
    return {name: _slice(f"tokens[{name!r:.80}]", ends) for name, ends in tokens.items()}


def _slice(name: str, ends: Any) -> slice:
    whole = isinstance(ends, list) and all(each is None or type(each) is int for each in ends)
    if not whole or len(ends) != 2:
        raise StackError(f"{name}={ends!r:.80}: the two ends of a slice are expected, as [0, 17] or [17, null]")
    return slice(*ends)


def _check_depth(model: nn.Module, kind: str, depth: object) -> None:
    stack = handle_of(model, kind).stack
    if stack.depth != depth:
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
