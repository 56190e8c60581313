"""Packages hand their names on when they are asked for, and type checkers see the same names."""

from __future__ import annotations

import ast
import importlib
import pickle
import sys
from pathlib import Path

import pytest

import cycledistill
from cycledistill import lazy

FACES = [
    "cycledistill",
    "cycledistill.integrations.coco",
    "cycledistill.integrations.human36m",
    "cycledistill.integrations.imagenet",
]


def for_type_checkers(path: Path) -> dict[str, str]:
    """Name -> module of the imports under ``if typing.TYPE_CHECKING``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, "`import X as X` says that X is handed on"
            found[alias.name] = "." * node.level + str(node.module)
    return found


@pytest.mark.parametrize("face", FACES)
def test_type_checkers_see_what_is_handed_on(face: str) -> None:
    pytest.importorskip("timm")
    module = importlib.import_module(face)
    seen = for_type_checkers(Path(str(module.__file__)))
    assert sorted(seen) == module.__all__
    for name, where in seen.items():
        assert getattr(module, name) is getattr(importlib.import_module(where, face), name)
        assert name in dir(module)


def test_star_imports_and_pickles_work() -> None:
    names: dict[str, object] = {}
    exec("from cycledistill import *", names)
    assert set(cycledistill.__all__) <= set(names)
    scheme = cycledistill.Distill(token_weight=0.5)
    assert pickle.loads(pickle.dumps(scheme)) == scheme
    assert pickle.loads(pickle.dumps(cycledistill.wrap_cyclic)) is cycledistill.wrap_cyclic


def test_modules_count_as_names_and_others_do_not() -> None:
    assert cycledistill.stack is importlib.import_module("cycledistill.stack")
    with pytest.raises(AttributeError, match="module 'cycledistill' has no attribute 'wrap_cyclik'"):
        cycledistill.wrap_cyclik  # noqa: B018
    with pytest.raises(ImportError, match="wrap_cyclik"):
        exec("from cycledistill import wrap_cyclik")


def test_a_name_is_looked_up_once_and_what_it_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "face").mkdir()
    (tmp_path / "face" / "__init__.py").write_text(
        "from cycledistill import lazy\n"
        "__all__, __getattr__, __dir__ = lazy.hand_on(\n"
        "    __name__, {'One': '.one', 'Two': '.two'}, requires='face[all]')\n"
    )
    (tmp_path / "face" / "one.py").write_text("class One: ...")
    (tmp_path / "face" / "two.py").write_text("import no_such_package.inside")
    monkeypatch.syspath_prepend(tmp_path)
    face = importlib.import_module("face")
    assert "face.one" not in sys.modules
    assert "One" not in vars(face) and face.One is face.one.One and vars(face)["One"] is face.One
    with pytest.raises(
        ModuleNotFoundError, match=r"face needs no_such_package, .* pip install 'face\[all\]'"
    ) as raised:
        face.Two  # noqa: B018
    assert raised.value.name == "no_such_package"
    for name in [each for each in sys.modules if each.partition(".")[0] == "face"]:
        monkeypatch.delitem(sys.modules, name)


def test_a_missing_module_of_our_own_is_a_fault() -> None:
    with pytest.raises(ModuleNotFoundError, match="no such room"):
        lazy.missing(ModuleNotFoundError("no such room", name="cycledistill.room"), "x", "y")
