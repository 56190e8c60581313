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
from cycledistill.metadata.classes import classes_of
from cycledistill.metadata.shape import ASSUMED, RANDOM, WEIGHTS
from cycledistill.plugin.torch_private import tree_leaves
from cycledistill.stack.probe import declared_channels, declared_sizes
from cycledistill.versions import made_with

_TOLD = "_told_of_its_weights"


def words_of(model: nn.Module, exit: int | None = None, call: Call | None = None) -> dict[str, str]:
    """Everything in `KEYS` that is known of a model, and what the model says itself (`export_metadata`), which counts.

    Args:
        model: Wrapped or plain.
        exit: The cycle whose output the file gives; default, the one that the model answers at. Weights are those of
            all exits.
        call: Inputs that the file was made with. Of a file of weights ``None``: the size that the model declares.

    Returns:
        The name is timm's ``architecture``, else the class. ``mean`` and ``std`` of pixels (where they are of as many
        channels as the model takes), ``crop_pct``, ``crop_mode`` and ``interpolation`` are those of timm's
        ``pretrained_cfg``, and named in ``assumed`` unless `tell` was called: they are what timm has for the name,
        whatever the weights were trained on. ``classes``: see `classes_of`.
    """
    own = getattr(model, "export_metadata", None)
    told: Mapping[str, str] = own() if callable(own) else {}
    known = getattr(model, "pretrained_cfg", None)
    timm: Mapping[str, Any] = known if isinstance(known, Mapping) else {}
    handle = next(iter(cyclic_handles(model)), None)
    if exit is None:
        exit = handle.exit if handle else 1
    pixels, size, classes = _pixels(model, timm), _size(model, call), classes_of(model)
    assumed = sorted((pixels.keys() | _default_size(model, call)) - set(getattr(model, _TOLD, ())))
    found = {
        **_cycles(handle),
        **size,
        **pixels,
        **({"classes": classes} if classes else {}),
        **({ASSUMED: assumed} if assumed else {}),
    }
    name = type(model).__name__
    words = {
        "model": str(timm.get("architecture") or name),
        **{key: json.dumps(value) for key, value in found.items()},
    }
    return with_words(words, told) | {"class": name, "exit": str(exit), "versions": json.dumps(made_with())}


def tell(model: nn.Module, **known: Any) -> None:
    """Have a model say of its weights what timm's ``pretrained_cfg`` has a default for.

    Args:
        model: Its ``pretrained_cfg`` is replaced by one that holds it.
        **known: Fields of ``pretrained_cfg``, such as ``mean`` and ``crop_pct``.

    Example:
        >>> tell(model, mean=(0.5,), std=(0.5,))
    """
    model.pretrained_cfg = {**getattr(model, "pretrained_cfg", {}), **known}  # type: ignore[assignment]
    vars(model)[_TOLD] = (*getattr(model, _TOLD, ()), *known)


def with_words(words: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """What a model says, and what else is known of it, which counts.

    Of random weights no training is told, however the model is wrapped. What is told is not assumed.

    Example:
        >>> with_words({"model": "vit", "cycles": "3", "distill": "null"}, {"weights": "random"})
        {'model': 'vit', 'weights': 'random'}
    """
    found = {**words, **more}
    untold = {"cycles", "distill"} if found.get(WEIGHTS) == RANDOM else set()
    if ASSUMED in words and ASSUMED not in more:
        left = [name for name in _names(words[ASSUMED]) if name not in more]
        found[ASSUMED] = json.dumps(left)
        untold |= set() if left else {ASSUMED}
    return {name: text for name, text in found.items() if name not in untold}


def _names(text: str) -> list[str]:
    """Of a list of words; of what a model's ``export_metadata`` has put there instead, nothing."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _cycles(handle: Cyclic | None) -> dict[str, Any]:
    return {"cycles": handle.cycles if handle else 1, "distill": plain_scheme(handle.distill) if handle else None}


def _size(model: nn.Module, call: Call | None) -> dict[str, Any]:
    """Of a model of images alone."""
    if call is None:
        sizes = [list(size) for size in declared_sizes(model)]
    else:
        channels = _channels(model)
        images = [x for x in tree_leaves(call) if isinstance(x, Tensor) and x.ndim == 4 and x.shape[1] == channels]
        sizes = [list(images[0].shape[2:])] if len(images) == 1 else []
    return {"input_size": sizes[0]} if sizes else {}


def _default_size(model: nn.Module, call: Call | None) -> set[str]:
    """Models of convolutions take any size, and timm has one for each name."""
    own = call is not None or any(declared_sizes(model, defaults=False))
    return set() if own or not any(declared_sizes(model)) else {"input_size"}


def _channels(model: nn.Module) -> int:
    return next(declared_channels(model, getattr(model, "config", None)))


def _pixels(model: nn.Module, timm: Mapping[str, Any]) -> dict[str, Any]:
    channels = _channels(model)
    pixels = {name: _numbers(timm.get(name)) for name in ("mean", "std")}
    return {**{name: each for name, each in pixels.items() if len(each) == channels}, **_crop(timm)}


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
