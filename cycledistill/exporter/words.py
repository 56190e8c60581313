"""What an exported file says of itself: enough to use it without the code that made it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from cycledistill.cycle.exits import cyclic_handles
from cycledistill.distill import PRESETS, Distill
from cycledistill.inputs import Call
from cycledistill.plugin.torch_private import tree_leaves
from cycledistill.versions import made_with


def words_of(model: nn.Module, exit: int, call: Call) -> dict[str, str]:
    """Model, exit, cycles, scheme, input and versions; what the model says itself (`export_metadata`) counts first.

    Names of models and exit are plain, all else is JSON: ``input_size`` (height, width), ``mean`` and ``std`` of its
    pixels (timm's ``pretrained_cfg``), ``classes`` (Hugging Face's ``id2label``).
    """
    own = getattr(model, "export_metadata", None)
    told: Mapping[str, str] = own() if callable(own) else {}
    found = {
        name: json.dumps(value) for name, value in (_cycles(model) | _input(model, call) | _classes(model)).items()
    }
    always = {"model": type(model).__name__, "exit": str(exit), "versions": json.dumps(made_with())}
    return {**found, **_architecture(model), **told, **always}


def _cycles(model: nn.Module) -> dict[str, Any]:
    handle = next(iter(cyclic_handles(model)), None)
    return {} if handle is None else {"cycles": handle.cycles, "distill": _scheme(handle.distill)}


def _scheme(scheme: object) -> Any:
    """A preset's name, else the fields that differ from the defaults; functions by name."""
    if not isinstance(scheme, Distill):
        return None if scheme is None else getattr(scheme, "__name__", type(scheme).__name__)
    name = next((name for name, preset in PRESETS.items() if preset == scheme), None)
    changed = {
        each.name: getattr(value, "__name__", type(value).__name__) if callable(value) else value
        for each in dataclasses.fields(scheme)
        if (value := getattr(scheme, each.name)) != each.default
    }
    return name or changed


def _input(model: nn.Module, call: Call) -> dict[str, Any]:
    """Of a model of images alone."""
    images = [x for x in tree_leaves(call) if isinstance(x, Tensor) and x.ndim == 4 and x.shape[1] == 3]
    known = getattr(model, "pretrained_cfg", None)
    pixels = {name: known[name] for name in ("mean", "std") if known.get(name)} if isinstance(known, Mapping) else {}
    return {"input_size": list(images[0].shape[2:]), **pixels} if len(images) == 1 else pixels


def _classes(model: nn.Module) -> dict[str, Any]:
    names = getattr(getattr(model, "config", None), "id2label", None)
    if not isinstance(names, Mapping) or all(str(name) == f"LABEL_{i}" for i, name in names.items()):
        return {}
    return {"classes": [names[i] for i in sorted(names)]}


def _architecture(model: nn.Module) -> dict[str, str]:
    known = getattr(model, "pretrained_cfg", None)
    name = known.get("architecture") if isinstance(known, Mapping) else None
    return {"architecture": name} if name else {}
