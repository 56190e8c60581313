"""A scheme out of the plain data that `cycledistill.distill.plain_scheme` makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from cycledistill.distill import Distill
from cycledistill.plugin.plain import CODE, code_in


def scheme_call(value: Any, given: str) -> str:
    """How the scheme of plain data that has functions in it is written in Python, with ``given`` for each of them.

    Raises:
        ValueError: What is no function is no scheme either: as `read_scheme`.

    Example:
        >>> scheme_call({"token_weight": 0.3, "token_loss": {"code": "huber"}}, "mine")
        'Distill(token_weight=0.3, token_loss=mine)'
    """
    if isinstance(value, Mapping) and set(value) == {CODE}:
        return given
    _check_fields(value)
    named = {name for name in ("token_loss", "output_loss", "select") if code_in(value.get(name)) is not None}
    scheme = read_scheme({name: _stand_in if name in named else each for name, each in value.items()})
    words = {name: given if name in named else repr(getattr(scheme, name)) for name in value}
    held = ", ".join(f"{name}={word if len(word) <= 80 else '...'}" for name, word in words.items())
    return f"Distill({held})"


def _stand_in(*given: Any) -> Any:
    raise NotImplementedError


def read_scheme(value: Any) -> Distill | None:
    """The scheme of plain data.

    Raises:
        ValueError: A function, an unknown preset or field, or a value that `Distill` refuses.
    """
    if value is None or isinstance(value, str):
        return None if value is None else Distill.preset(value)
    _check_fields(value)
    return Distill(**value)


def _check_fields(value: Any) -> None:
    known = [each.name for each in fields(Distill)]
    if not isinstance(value, Mapping):
        raise ValueError(f"distill={value!r:.200}: a preset, or fields of Distill, are expected")
    unknown = ", ".join(repr(name) for name in value if name not in known)
    if unknown:
        raise ValueError(f"distill={value!r:.200}: {unknown:.200} no field of Distill, which has {', '.join(known)}")
