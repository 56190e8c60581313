"""Published models by name: unknown names and options are refused with the nearest known ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

C = TypeVar("C")


def published(models: Mapping[str, C], name: str, kind: str, listing: str) -> C:
    """What a name stands for.

    Raises:
        ValueError: An unknown name, with the nearest known ones.
    """
    if name not in models:
        near = difflib.get_close_matches(name.lower().replace("-", "_"), models, n=3, cutoff=0.6)
        hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(sorted(models))}"
        raise ValueError(f"{name!r} is no {kind}; {hint} ({listing}() names them all)")
    return models[name]


def check_options(options: Iterable[str], known: Iterable[str], who: str) -> None:
    """Refuse options that a model does not have."""
    known = set(known)
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, sorted(known), n=1, cutoff=0.6)
            hint = f"the nearest is {near[0]!r}" if near else f"it has {', '.join(sorted(known))}"
            raise ValueError(f"{who} has no option {option!r}; {hint}")


def split_options(config: Any, options: Mapping[str, Any], who: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of a model as those of its network and those of the plug-ins on it.

    Example:
        >>> split_options(PoseModelConfig(), {"depth": 6, "keep": 0.5}, "ppt_s")
        ({'depth': 6}, {'keep': 0.5})
    """
    network = {each.name for each in fields(config.network)}
    model = {each.name for each in fields(config)} - {"network", "note", "name"}
    check_options(options, network | model, who)
    of_network = {key: value for key, value in options.items() if key in network}
    return of_network, {key: value for key, value in options.items() if key in model}
