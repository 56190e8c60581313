"""The names of a model's classes, where it has an output for each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn


def classes_of(model: nn.Module) -> list[str]:
    """Names by timm's ``label_names`` or Hugging Face's ``id2label``; none if its head has not so many outputs.

    A config outlives the head that it was written for: a backbone keeps it, and so does a model with a new head.

    Example:
        >>> classes_of(AutoModelForImageClassification.from_pretrained("pets"))
        ['cat', 'dog']
    """
    names = _named(model)
    return names if names and len(names) in set(_widths(model)) else []


def _named(model: nn.Module) -> list[str]:
    timm = getattr(model, "pretrained_cfg", None)
    labels = timm.get("label_names") if isinstance(timm, Mapping) else None
    if isinstance(labels, Sequence) and not isinstance(labels, str) and labels:
        return [str(each) for each in labels]
    names = getattr(getattr(model, "config", None), "id2label", None)
    if not isinstance(names, Mapping) or all(str(name) == f"LABEL_{i}" for i, name in names.items()):
        return []
    return [names[i] for i in sorted(names)]


def _widths(model: nn.Module) -> Iterator[int]:
    """How many outputs each layer has that may be the last."""
    for module in _head(model):
        for name in ("out_features", "out_channels"):
            width = getattr(module, name, None)
            if isinstance(width, int):
                yield width


def _head(model: nn.Module) -> Iterator[nn.Module]:
    """The modules of the head, of a model that says which these are; else all."""
    classifier: Any = getattr(model, "get_classifier", None)  # timm
    if callable(classifier):
        found = classifier()
        for each in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(each, nn.Module):
                yield from each.modules()
        return
    prefix = getattr(model, "base_model_prefix", None)  # transformers: what is not the head
    body = getattr(model, prefix, model) if isinstance(prefix, str) and prefix else None
    if isinstance(body, nn.Module) and body is not model:
        if hasattr(body, "get_classifier"):  # a model of timm in one of transformers
            yield from _head(body)
        inside = set(body.modules())
        yield from (each for each in model.modules() if each not in inside)
    elif body is None:
        yield from model.modules()
    else:  # a backbone, or with a head beside the parts of one (CLIP, SigLIP): what is no part is a layer by itself
        yield from model.children()
