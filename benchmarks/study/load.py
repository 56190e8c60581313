"""Plans from YAML files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from cycledistill.recipes.config.overrides import build
from cycledistill.recipes.reading.guard import FILE, reading
from cycledistill.recipes.reading.texts import parse_yaml

from .checks import check
from .errors import StudyError
from .plan import Arm, Comparison, Network, Plan, Training

T = TypeVar("T")
PLANS = Path(__file__).parent / "plans"
_NOTHING = dataclasses.MISSING


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
        plan = _plan(given)
        check(plan)
    except ValueError as error:
        raise StudyError(f"{path.name}: {error}") from error
    return plan


def _plan(given: Any) -> Plan:
    data = _mapping(given, "the file")
    arms, comparisons = _mapping(data.pop("arms", {}), "arms"), data.pop("comparisons", [])
    if not isinstance(comparisons, list):
        raise StudyError(f"comparisons: a list, a mapping for each, is expected, not {_kind(comparisons)}")
    for name, section in (("network", Network), ("training", Training)):
        if name in data:  # where it is not, the plan lacks it
            _built(section, data[name], name)
    plan = _built(Plan, data | {"arms": {}, "comparisons": []})
    return dataclasses.replace(
        plan,
        arms={name: _built(Arm, fields, f"arms.{name}") for name, fields in arms.items()},
        comparisons=[_built(Comparison, each, f"comparisons[{place}]") for place, each in enumerate(comparisons)],
    )


def _built(cls: type[T], value: Any, where: str = "") -> T:
    """A section of a plan; whatever is wrong in it is named with its place."""
    fields = _mapping(value, where or "the file")
    needed = [each.name for each in dataclasses.fields(cls) if _NOTHING is each.default is each.default_factory]  # type: ignore[arg-type]
    if missing := [name for name in needed if name not in fields]:
        raise StudyError(f"{where or 'the file'}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    return build(cls, fields, f"{where}." if where else "")


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise StudyError(f"{where}: a mapping of keys to values is expected, not {_kind(value)}")
    return dict(value)


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__
