"""The front of a package hands on names: what type checkers read there is what runs, and every name is there."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FACES = sorted(
    path
    for folder in ("cycledistill", "integrations")
    for path in (ROOT / folder).rglob("__init__.py")
    if "lazy.hand_on(" in path.read_text(encoding="utf-8")
)


def package_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parent.parts
    return ".".join(parts if parts[0] == "cycledistill" else ("cycledistill", *parts))


@pytest.mark.parametrize("path", FACES, ids=package_of)
def test_a_face_tells_type_checkers_what_it_hands_on(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        alias.name: f"{'.' * node.level}{node.module}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name not in {"lazy", "versions"}
    }
    (handed,) = (ast.literal_eval(node) for node in ast.walk(tree) if isinstance(node, ast.Dict))
    package = package_of(path)
    resolved = [
        {name: importlib.util.resolve_name(module, package) for name, module in each.items()}
        for each in (imported, handed)
    ]
    assert resolved[0] == resolved[1] and handed


@pytest.mark.parametrize("path", FACES, ids=package_of)
def test_every_name_of_a_face_is_there(path: Path) -> None:
    package = importlib.import_module(package_of(path))
    for name in package.__all__:
        try:
            getattr(package, name)
        except ModuleNotFoundError as error:
            if str(error.name).startswith("cycledistill"):
                raise
            pytest.skip(str(error))
