"""From what a recipe says about distillation to what ``wrap_cyclic`` takes, and back."""

from __future__ import annotations

import dataclasses
from typing import Any

from cycledistill import Distill
from cycledistill.distill import plain_scheme
from cycledistill.plugin.plain import code_in
from cycledistill.recipes.config.overrides import did_you_mean
from cycledistill.recipes.errors import RecipeError


def read_distill(value: str | dict[str, Any] | None) -> Distill | None:
    """What ``cyclic.distill`` says, as ``wrap_cyclic`` takes it.

    Args:
        value: A preset's name, nothing, or a mapping of ``Distill`` fields; with the key ``preset`` the mapping changes
            that preset (``{preset: sdpose, token_weight: 0.01}``).

    Raises:
        RecipeError: An unknown preset or field, or a value that ``Distill`` refuses.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return _preset(value)
    known = [item.name for item in dataclasses.fields(Distill) if item.name != "select"]
    fields: dict[str, Any] = {name: tuple(entry) if isinstance(entry, list) else entry for name, entry in value.items()}
    preset = fields.pop("preset", None)
    for name in fields:
        if name not in known:
            raise RecipeError(
                f"unknown key 'cyclic.distill.{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}."
            )
    base = _preset(preset) if preset else Distill()
    try:
        return dataclasses.replace(base, **fields)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"cyclic.distill: {error}") from error


def plain_distill(scheme: object) -> str | dict[str, Any] | None:
    """What `read_distill` reads the same scheme from: a preset's name, or the fields that differ from the defaults.

    Raises:
        RecipeError: The scheme, or one of its fields, is code.
    """
    if scheme is not None and not isinstance(scheme, Distill):
        raise RecipeError("the distillation is a function, which no config can hold")
    plain = plain_scheme(scheme)
    for name, value in plain.items() if isinstance(plain, dict) else ():
        if code_in(value) is not None:
            raise RecipeError(f"the distillation's {name} is a function, which no config can hold")
    return plain


def _preset(name: str) -> Distill:
    try:
        return Distill.preset(name)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"cyclic.{error}") from error
