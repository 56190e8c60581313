"""From what a recipe says about distillation to what ``wrap_cyclic`` takes."""

from __future__ import annotations

import dataclasses
from typing import Any

from cycledistill import Distill
from cycledistill.recipes.errors import ConfigError
from cycledistill.recipes.overrides import nearest


def read_distill(value: str | dict[str, Any] | None) -> Distill | None:
    """What ``cyclic.distill`` says, as ``wrap_cyclic`` takes it.

    Args:
        value: A preset's name, nothing, or a mapping of ``Distill`` fields; with the key ``preset`` the mapping changes
            that preset (``{preset: sdpose, token_weight: 0.01}``).

    Raises:
        ConfigError: An unknown preset or field, or a value that ``Distill`` refuses.
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
            raise ConfigError(f"unknown key 'cyclic.distill.{name}'.{nearest(name, known)} Known: {', '.join(known)}.")
    base = _preset(preset) if preset else Distill()
    try:
        return dataclasses.replace(base, **fields)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"cyclic.distill: {error}") from error


def _preset(name: str) -> Distill:
    try:
        return Distill.preset(name)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"cyclic.{error}") from error
