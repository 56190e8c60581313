"""Plans from YAML files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cycledistill.recipes.config.overrides import build
from cycledistill.recipes.reading.guard import FILE, reading
from cycledistill.recipes.reading.texts import parse_yaml

from .checks import check
from .errors import StudyError
from .plan import Arm, Comparison, Plan

PLANS = Path(__file__).parent / "plans"


def load_plan(source: str | Path) -> Plan:
    """Read a plan: a YAML file, or the name of one in ``plans``.

    Raises:
        StudyError: It is not there or not YAML, has an unknown key or a value out of range, compares what it does not
            train, or leaves out a baseline of an arm with cycles without saying why.

    Example:
        >>> load_plan("mazes").arms["exits"].cycles
        4
    """
    path = Path(source)
    path = path if path.is_file() else PLANS / f"{source}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in PLANS.glob("*.yaml")))
        raise StudyError(f"{source}: neither a file nor a registered study ({known})")
    with reading(path.name, FILE, StudyError):
        text = path.read_text(encoding="utf-8")
    given = parse_yaml(text, path.name, StudyError)
    try:
        data = _mapping(given, "the file")
        arms = _mapping(data.pop("arms", {}), "arms")
        comparisons = data.pop("comparisons", [])
        named = {name: build(Arm, _mapping(fields, f"arms.{name}")) for name, fields in arms.items()}
        listed = [build(Comparison, _mapping(each, "comparisons")) for each in comparisons]
        plan: Plan = dataclasses.replace(
            build(Plan, data | {"arms": {}, "comparisons": []}), arms=named, comparisons=listed
        )
        check(plan)
    except (ValueError, TypeError) as error:
        raise StudyError(f"{path.name}: {error}") from error
    return plan


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise StudyError(f"{where}: a mapping of keys to values is expected, not {type(value).__name__}")
    return dict(value)
