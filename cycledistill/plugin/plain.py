"""Settings as plain data, which a file can hold; what none can, a function say, stands there by its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

SAVED = "cycledistill.json"
"""The file beside a model's weights that says how it was wrapped."""

CODE = "code"
"""The key under which the name stands of what no file can hold: a function, a tensor."""


def plain_value(value: Any) -> Any:
    """A setting as JSON holds it.

    Tuples are lists, a slice its two ends, a dataclass its fields that differ from their defaults. A function or a
    tensor is ``{"code": its name}``.

    Example:
        >>> plain_value({"layers": (1, 2), "query": slice(0, 3), "select": len})
        {'layers': [1, 2], 'query': [0, 3], 'select': {'code': 'len'}}
    """
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain_value(each) for each in value]
    if isinstance(value, slice):
        return [value.start, value.stop]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        held = ((each.name, getattr(value, each.name), each.default) for each in dataclasses.fields(value))
        return {name: plain_value(each) for name, each, default in held if each != default}
    if isinstance(value, Mapping):
        return {str(name): plain_value(each) for name, each in value.items()}
    return {CODE: getattr(value, "__name__", type(value).__name__)}


def code_in(value: Any) -> str | None:
    """The name of the first thing in a plain value that no file can hold, if there is one."""
    if isinstance(value, Mapping):
        if set(value) == {CODE} and isinstance(value[CODE], str):  # a token group may have this name
            return value[CODE]
        value = list(value.values())
    found = map(code_in, value) if isinstance(value, list) else ()
    return next((name for name in found if name is not None), None)
