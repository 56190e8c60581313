"""What a classifier's classes are called."""

from __future__ import annotations

import re
from collections.abc import Sequence

from timm.data.imagenet_info import ImageNetInfo
from torch import nn

_SYNSET = re.compile(r"n\d{8}")


def class_names(model: nn.Module) -> list[str]:
    """The names of a model's classes, in the order of its outputs: of its run's data set; empty where it has none."""
    said = getattr(model, "pretrained_cfg", None)
    names = said.get("label_names") if isinstance(said, dict) else getattr(said, "label_names", None)
    return [str(each) for each in names] if isinstance(names, Sequence) and not isinstance(names, str) else []


def descriptions(names: Sequence[str]) -> list[str]:
    """What ImageNet's classes are, in words; empty where a name is no WordNet number.

    Example:
        >>> descriptions(["n01440764"])
        ['tench, Tinca tinca']
    """
    if not names or not all(_SYNSET.fullmatch(each) for each in names):
        return []
    known = ImageNetInfo()  # its words are of all of WordNet
    return [_described(known, each) for each in names]


def _described(known: ImageNetInfo, name: str) -> str:
    try:
        return known.label_name_to_description(name)
    except KeyError:  # of another WordNet
        return ""
