"""The page that explains the core names what is there, and every file of it."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import cycledistill

PACKAGE = Path(cycledistill.__file__).parent
FOLDER = PACKAGE / "cycle"
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")
PYTHON = {"__call__", "None", "True", "False", "except"}


def defined() -> set[str]:
    """Every name that the library's files define: classes, functions, arguments, variables, attributes."""
    names: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.arg):
                names.add(node.arg)
            elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.id if isinstance(node, ast.Name) else node.attr)
    return names


def members() -> dict[str, set[str]]:
    """What each class of the core has: attributes, annotated ones, and those that its methods set."""
    found: dict[str, set[str]] = {}
    for path in (*FOLDER.glob("*.py"), PACKAGE / "distill.py"):
        module = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                attributes = [each for each in ast.walk(node) if isinstance(each, ast.Attribute)]
                stored = {each.attr for each in attributes if isinstance(each.ctx, ast.Store)}
                fields = {each.target.id for each in node.body if isinstance(each, ast.AnnAssign)}  # type: ignore[union-attr]
                found[node.name] = stored | fields | set(dir(getattr(module, node.name)))
    return found


def spans() -> list[str]:
    """The code on the page: inline, and the lines of its timelines."""
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`]+)`", re.sub(r"^```\n.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL))
    calls = [
        name for block in blocks for name in re.findall(r"\b[A-Z]\w+(?:\.\w+)+|\b[A-Z][a-z]+[A-Z]\w+|\b_\w+", block)
    ]
    return inline + calls


def test_every_name_on_the_page_exists() -> None:
    names, classes = defined(), members()
    for span in sorted(set(spans())):
        if re.search(r"\.py$|/$", span):
            assert any((folder / span).exists() for folder in (FOLDER, PACKAGE.parent)), span
            continue
        used = set(re.findall(r"[A-Za-z_]\w*", re.sub(r'"[^"]*"', "", span)))
        assert used and used <= names | PYTHON, f"{span}: {used - names - PYTHON}"
        for owner, member in re.findall(r"\b([A-Z]\w+)\.(\w+)", span):
            assert member in classes.get(owner, set()), span


def test_every_file_of_the_core_is_on_the_page() -> None:
    listed = re.findall(r"^\| `(\w+\.py)` \|", PAGE, re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in FOLDER.glob("*.py") if path.name != "__init__.py")


def test_the_orders_on_the_page_are_those_of_the_classes() -> None:
    listed = {name: int(order) for order, name in re.findall(r"^\| (\d+) \| (\w+) \|", PAGE, re.MULTILINE)}
    for name, module in (("hourglass", "hourglass"), ("cycles", "cycle"), ("pruning", "prune")):
        plugins = importlib.import_module(f"cycledistill.{module}.modules")
        orders = {
            c.swap_order
            for c in vars(plugins).values()
            if getattr(c, "__module__", "") == plugins.__name__ and hasattr(c, "swap_order")
        }
        assert orders == {listed[name]}, name
