"""The public names are a promise: they change on purpose or not at all."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

SURFACE = Path(__file__).with_name("api_surface.json")
PROMISED: dict[str, list[str]] = json.loads(SURFACE.read_text(encoding="utf-8"))


def imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("cycledistill"):
            raise
        pytest.skip(f"{name} needs {error.name}")


def public_names(module: ModuleType) -> list[str]:
    """What users see: ``__all__``, and any other plain name that is no module."""
    visible = {name for name, value in vars(module).items() if name[0] != "_" and not isinstance(value, ModuleType)}
    return sorted(visible | set(module.__all__))


@pytest.mark.parametrize("name", PROMISED)
def test_public_names_are_the_promised_ones(name: str) -> None:
    found, promised = public_names(imported(name)), PROMISED[name]
    removed, added = sorted(set(promised) - set(found)), sorted(set(found) - set(promised))
    assert found == promised, (
        f"public names of {name}: removed {removed}, added {added}. If that is intended, write it into {SURFACE.name}"
        " (sorted) and CHANGELOG.md; a removed name is first deprecated for one release. If not, give the name back,"
        " or a leading underscore."
    )


def test_every_package_that_users_import_is_promised() -> None:
    root = Path(__file__).resolve().parents[1]
    integrations = [path.parent.name for path in (root / "integrations").glob("*/__init__.py")]
    assert sorted(PROMISED) == [
        "cycledistill",
        "cycledistill.adaptive",
        *sorted(f"cycledistill.integrations.{name}" for name in integrations),
    ]


@pytest.mark.parametrize("name", PROMISED)
def test_every_promised_name_exists_and_is_documented(name: str) -> None:
    module = imported(name)
    undocumented = [entry for entry in PROMISED[name] if not (getattr(module, entry).__doc__ or "").strip()]
    assert not undocumented, f"no docstring: {undocumented}"
