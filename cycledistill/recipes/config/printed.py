"""A whole recipe as YAML that can be read again, with where each value is from as a comment."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

_WIDE = 1 << 30
"""So that no value is broken over lines, where its comment would stand in it."""


@dataclass(frozen=True)
class Layer:
    """What one source of values says.

    Attributes:
        source: What it is called: ``"--epochs 3"``.
        data: What it holds: sections, or values by dotted key.
    """

    source: str
    data: Mapping[str, Any]


def print_recipe(recipe: Any, layers: Sequence[Layer], renamed: Mapping[str, str] | None = None) -> str:
    """The recipe as YAML.

    Args:
        recipe: A dataclass of sections.
        layers: Where its values are from; later ones go before earlier ones. What none of them holds is a default.
        renamed: Keys of earlier versions, and today's.

    Example:
        >>> print(print_recipe(recipe, [Layer("config small", {"optim": {"lr": 0.1}})]))
        optim:
          name: adamw  # default
          lr: 0.1  # config small
        ...
    """
    renamed = renamed or {}
    said = [(layer.source, [renamed.get(key, key) for key in _keys(layer.data)]) for layer in layers]
    lines = []
    for key, value, depth in _lines(recipe):
        indent, name = "  " * depth, key.rpartition(".")[2]
        if dataclasses.is_dataclass(value):
            lines.append(f"{indent}{name}:")
        else:
            lines.append(f"{indent}{name}: {_value(value)}  # {_source(key, said)}")
    return "\n".join(lines) + "\n"


def run_layers(run: str, stored: Any, default: Any) -> list[Layer]:
    """The layers of a run's recipe, which holds all values: those that are defaults were not chosen.

    Args:
        run: What the run is called.
        stored: Its recipe.
        default: The recipe in which nothing is said.
    """
    usual = {key: value for key, value, _ in _lines(default)}
    values = {key: value for key, value, _ in _lines(stored) if not dataclasses.is_dataclass(value)}
    chosen = {key: value for key, value in values.items() if value != usual[key]}
    return [Layer(f"default, in run {run} too", values), Layer(f"run {run}", chosen)]


def _source(key: str, said: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Who said a value last; of a mapping all who changed a part of it since it was said as a whole."""
    found: list[str] = []
    for source, keys in said:
        if key in keys:
            found = [source]
        elif any(each.startswith(f"{key}.") for each in keys):
            found.append(source)
    return " ".join(", ".join(found).split()) or "default"  # one line, whatever was typed


def _keys(data: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """All dotted keys of nested data, those of sections and of mappings too."""
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _keys(value, f"{path}{name}.")
        yield f"{path}{name}"


def _lines(section: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any, int]]:
    for field in dataclasses.fields(section):
        value, key = getattr(section, field.name), f"{path}{field.name}"
        yield key, value, depth
        if dataclasses.is_dataclass(value):
            yield from _lines(value, f"{key}.", depth + 1)


def _value(value: Any) -> str:
    broken = isinstance(value, str) and "\n" in value
    style = '"' if broken else None
    text = yaml.safe_dump(value, default_flow_style=True, default_style=style, width=_WIDE, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...").strip()
