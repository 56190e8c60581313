"""Arrows point one way: examples -> integrations -> cycledistill; what integrations know of each other stands here."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "cycledistill"
CORE = sorted(path for path in LIBRARY.rglob("*.py") if "integrations" not in path.parts)
# What training commands and published models share; the rest of the library does without.
RECIPES_NEED = {"huggingface_hub", "numpy", "safetensors", "yaml"}
INTEGRATIONS = sorted((ROOT / "integrations").rglob("*.py"))
# Which packages of another integration a package may use: nothing else of it.
BORROWED = {
    "human36m/multiview": ("coco.models", "coco.weights.key_map"),
    "mmpose": ("coco.models",),
}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module a file imports, by its full name, and whether that happens as soon as the file is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = path.relative_to(ROOT).with_suffix("").parts
    package = (("cycledistill", *inside) if inside[0] == "integrations" else inside)[:-1]
    deferred = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test))
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        now = id(node) not in deferred
        if isinstance(node, ast.Import):
            yield from ((alias.name, now) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join((*package[: len(package) + 1 - node.level], *filter(None, [node.module])))
            base = base if node.level else str(node.module)
            yield base, now
            yield from ((f"{base}.{alias.name}", now) for alias in node.names if base.startswith("cycledistill"))


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.relative_to(LIBRARY).as_posix())
def test_library_needs_torch_alone_and_no_integration(path: Path) -> None:
    recipe = "recipes" in path.parts
    allowed = {"cycledistill", "torch", *sys.stdlib_module_names} | (RECIPES_NEED if recipe else set())
    for name, now in imports(path):
        assert not name.startswith("cycledistill.integrations"), f"{path.name} imports {name}"
        assert recipe or not name.startswith("cycledistill.recipes"), f"{path.name} imports {name}, for commands alone"
        assert not now or name.partition(".")[0] in allowed, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", INTEGRATIONS, ids=lambda path: "/".join(path.parts[-2:]))
def test_an_integration_imports_of_another_what_is_allowed(path: Path) -> None:
    inside = path.relative_to(ROOT / "integrations")
    own, allowed = (
        inside.parts[0],
        tuple(
            f"cycledistill.integrations.{package}"
            for folder, packages in BORROWED.items()
            if inside.is_relative_to(folder)
            for package in packages
        ),
    )
    others = {folder.name for folder in (ROOT / "integrations").iterdir() if folder.is_dir()} - {own}
    for name, _ in imports(path):
        parts = name.split(".")
        assert parts[0] != "integrations", f"{path} imports {name}: write cycledistill.{name}"
        if parts[:2] == ["cycledistill", "integrations"] and len(parts) > 2:
            borrowed = any(f"{name}.".startswith(f"{package}.") for package in allowed)
            assert borrowed or parts[2] not in others, (
                f"{path} imports {name}: move what both need down into cycledistill"
            )
