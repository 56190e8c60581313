"""The pictures of the page "How it works" are those of the code, and the script that draws them sees what it should."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts import ROOT, load_script

PICTURES = ROOT / "docs" / "structure"


@pytest.fixture(scope="module")
def draw() -> ModuleType:
    return load_script("docs/structure/draw.py")


def test_committed_pictures_are_those_of_the_code(draw: ModuleType) -> None:
    drawn = draw.pictures()
    assert {path.name for path in PICTURES.glob("*.svg")} == set(drawn)
    stale = [name for name, content in drawn.items() if (PICTURES / name).read_text(encoding="utf-8") != content]
    assert not stale, f"{stale} are out of date: run python docs/structure/draw.py"


def test_imports_of_every_form_become_arrows(draw: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "low").mkdir()
    (tmp_path / "__init__.py").write_text("from house.top import x")  # the face is no room
    (tmp_path / "low" / "__init__.py").write_text("")
    (tmp_path / "low" / "leaf.py").write_text("import math")
    (tmp_path / "middle.py").write_text("def late():\n    from .low.leaf import pi")
    (tmp_path / "beside.py").write_text("from . import low")
    (tmp_path / "top.py").write_text("import house.middle\nfrom house.low import leaf")
    graph = draw.rooms(tmp_path, "house")
    assert graph == {"low": set(), "middle": {"low"}, "beside": {"low"}, "top": {"middle", "low"}}
    assert draw.floors(graph) == {"low": 0, "middle": 1, "beside": 1, "top": 2}
    assert draw.without_implied(graph)["top"] == {"middle"}


def test_a_circle_is_named(draw: ModuleType) -> None:
    with pytest.raises(ValueError, match="a -> b -> a"):
        draw.floors({"a": {"b"}, "b": {"a"}})
