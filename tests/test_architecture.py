"""The rules that keep the house in order, held against the code: see `tests/arrows.py`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

import pytest

from tests.architecture import ROOT, Code, circle, imports_by_name
from tests.arrows import (
    BETWEEN,
    BY_NAME,
    INTEGRATION,
    INTEGRATION_ARROWS,
    INTEGRATIONS,
    LIBRARY,
    LIBRARY_ARROWS,
    MAY_LOAD,
    MOST_FLOORS,
    RECIPES_ARROWS,
    THIRD_PARTY,
    THIRD_PARTY_OF_INTEGRATIONS,
)
from tests.rules import RULES, floors, package_of, parts_of, read_code, third_party, third_party_of_integrations


@pytest.fixture(scope="session")
def code() -> Code:
    return read_code(ROOT)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rules_of_the_house(code: Code, rule: Callable[[Code], Iterable[str]]) -> None:
    broken = list(rule(code))
    assert not broken, "\n".join(broken)


def test_no_circle_between_files(code: Code) -> None:
    assert circle(code.arrows) is None


def test_few_floors(code: Code) -> None:
    assert len(floors(code)) <= MOST_FLOORS, " -> ".join(floors(code))


def test_what_the_library_needs_from_outside(code: Code) -> None:
    assert third_party(code) == THIRD_PARTY


def test_what_the_integrations_need_from_outside(code: Code) -> None:
    assert third_party_of_integrations(code) == THIRD_PARTY_OF_INTEGRATIONS


def test_the_library_is_imported_with_torch_alone(code: Code) -> None:
    """Everything else is imported where it is used, so that it need not be there. What commands share needs more."""
    for name, module in code.modules.items():
        if parts_of(name)[0] == LIBRARY and package_of(name) != "recipes":
            now = {each.name.partition(".")[0] for each in module.imports if not each.inside}
            assert now <= {LIBRARY, "torch", *sys.stdlib_module_names}, name


def test_the_tables_name_what_is_there(code: Code) -> None:
    def names(side: str, below: str = "") -> set[str]:
        found = [parts for other, parts in map(parts_of, code.modules) if other == side]
        if not below:
            return {parts[0] or "__init__" for parts in found}
        return {parts[1] if len(parts) > 1 else "__init__" for parts in found if parts[0] == below}

    assert set(LIBRARY_ARROWS) == names(LIBRARY)
    assert set(RECIPES_ARROWS) == names(LIBRARY, "recipes")
    rooms = {name: names(INTEGRATIONS, name) for name in INTEGRATION_ARROWS}
    for name, arrows in INTEGRATION_ARROWS.items():
        assert rooms[name] <= set(arrows), name
    assert set(INTEGRATION) <= set().union(*rooms.values())
    assert {name for name, module in code.modules.items() if any(imports_by_name(module))} == BY_NAME


@pytest.mark.parametrize("room", sorted(set().union(*BETWEEN.values())))
def test_who_takes_a_room_of_another_integration_does_not_get_the_house(code: Code, room: str) -> None:
    """Importing `coco.models` runs `coco/__init__.py` first: neither may load training, data sets or recipes."""
    start = [name for name in code.modules if f"{name}.".startswith(f"{INTEGRATIONS}.{room}.")]
    loaded = [parts for side, parts in map(parts_of, code.loaded_by(start)) if side == INTEGRATIONS]
    assert {".".join(parts[:2]) for parts in loaded if len(parts) > 1} <= MAY_LOAD.get(room, {room})
