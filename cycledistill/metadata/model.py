"""What a model says of itself for its files: enough to use them without the code that made them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from cycledistill.cycle.exits import cyclic_handles
from cycledistill.cycle.handle import Cyclic
from cycledistill.distill import plain_scheme
from cycledistill.inputs import Call
from cycledistill.metadata.shape import RANDOM, WEIGHTS
from cycledistill.plugin.torch_private import tree_leaves
from cycledistill.stack.probe import declared_sizes
from cycledistill.versions import made_with


def words_of(model: nn.Module, exit: int | None = None, call: Call | None = None) -> dict[str, str]:
    """Everything in `KEYS` that is known of a model, and what the model says itself (`export_metadata`), which counts.

    Args:
        model: Wrapped or plain.
        exit: The cycle whose output the file gives; default, the one that the model answers at. Weights are those of
            all exits.
        call: Inputs that the file was made with. Of a file of weights ``None``: the size that the model declares.

    Returns:
        The name is timm's ``architecture``, else the class; ``mean`` and ``std`` of pixels, ``crop_pct``,
        ``crop_mode`` and ``interpolation`` are those of timm's ``pretrained_cfg``, ``classes`` its ``label_names`` or
        Hugging Face's ``id2label``.
    """
    own = getattr(model, "export_metadata", None)
    told: Mapping[str, str] = own() if callable(own) else {}
    known = getattr(model, "pretrained_cfg", None)
    timm: Mapping[str, Any] = known if isinstance(known, Mapping) else {}
    handle = next(iter(cyclic_handles(model)), None)
    if exit is None:
        exit = handle.exit if handle else 1
    found = {**_cycles(handle), **_input(model, call, timm), **_classes(model, timm)}
    name = type(model).__name__
    return {
        "model": str(timm.get("architecture") or name),
        **{key: json.dumps(value) for key, value in found.items()},
        **told,
        "class": name,
        "exit": str(exit),
        "versions": json.dumps(made_with()),
    }


def with_words(words: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """What a model says, and what else is known of it, which counts.

    Of random weights no training is told, however the model is wrapped.

    Example:
        >>> with_words({"model": "vit", "cycles": "3", "distill": "null"}, {"weights": "random"})
        {'model': 'vit', 'weights': 'random'}
    """
    found = {**words, **more}
    untold = {"cycles", "distill"} if found.get(WEIGHTS) == RANDOM else set()
    return {name: text for name, text in found.items() if name not in untold}


def _cycles(handle: Cyclic | None) -> dict[str, Any]:
    return {"cycles": handle.cycles if handle else 1, "distill": plain_scheme(handle.distill) if handle else None}


def _input(model: nn.Module, call: Call | None, timm: Mapping[str, Any]) -> dict[str, Any]:
    """Of a model of images alone."""
    if call is None:
        sizes = [list(size) for size in declared_sizes(model)]
    else:
        images = [x for x in tree_leaves(call) if isinstance(x, Tensor) and x.ndim == 4 and x.shape[1] == 3]
        sizes = [list(images[0].shape[2:])] if len(images) == 1 else []
    pixels = {name: _numbers(timm.get(name)) for name in ("mean", "std")}
    size = {"input_size": sizes[0]} if sizes else {}
    return {**size, **{name: each for name, each in pixels.items() if each}, **_crop(timm)}


def _crop(timm: Mapping[str, Any]) -> dict[str, Any]:
    """How a picture becomes an image of that size, see `timm.data.create_transform`."""
    share, named = timm.get("crop_pct"), {name: timm.get(name) for name in ("crop_mode", "interpolation")}
    return {
        **({"crop_pct": float(share)} if isinstance(share, (int, float)) else {}),
        **{name: word for name, word in named.items() if isinstance(word, str) and word},
    }


def _numbers(value: Any) -> list[float]:
    plain = isinstance(value, Sequence) and all(isinstance(each, (int, float)) for each in value)
    return [float(each) for each in value] if plain else []


def _classes(model: nn.Module, timm: Mapping[str, Any]) -> dict[str, Any]:
    labels = timm.get("label_names")
    if isinstance(labels, Sequence) and not isinstance(labels, str) and labels:
        return {"classes": [str(each) for each in labels]}
    names = getattr(getattr(model, "config", None), "id2label", None)
    if not isinstance(names, Mapping) or all(str(name) == f"LABEL_{i}" for i, name in names.items()):
        return {}
    return {"classes": [names[i] for i in sorted(names)]}
