"""The pictures of the page "How it works" are those of the code, and the script that draws them sees what it should."""

from __future__ import annotations

import re
from collections.abc import Iterator
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


def test_no_arrow_passes_behind_a_box(draw: ModuleType) -> None:
    """Else one long arrow reads as two short ones."""
    number = r"(-?[\d.]+)"
    for name, content in draw.pictures().items():
        boxes = [
            tuple(map(float, found))
            for found in re.findall(rf'"box" x="{number}" y="{number}" width="{number}" height="{number}"', content)
        ]
        ways = re.findall(r'class="arrow".* d="([^"]+)"', content)
        assert boxes and ways
        for way in ways:
            for x, y in points(way):
                behind = [box for box in boxes if box[0] < x < box[0] + box[2] and box[1] < y < box[1] + box[3]]
                assert not behind, f"{name}: {way} at {x:.0f}, {y:.0f}"


def points(way: str) -> Iterator[tuple[float, float]]:
    """Places along a path of M, C and V commands, its two ends apart."""
    at = (0.0, 0.0)
    for command, numbers in re.findall(r"([MCV])([^MCV]+)", way):
        values = [float(each) for each in numbers.split()]
        if command == "C":
            corners = [at, *zip(values[::2], values[1::2], strict=True)]
            for part in (step / 50 for step in range(1, 50)):
                weights = [(1 - part) ** 3, 3 * part * (1 - part) ** 2, 3 * part**2 * (1 - part), part**3]
                yield (
                    sum(weight * x for weight, (x, _) in zip(weights, corners, strict=True)),
                    sum(weight * y for weight, (_, y) in zip(weights, corners, strict=True)),
                )
        elif command == "V":
            yield at[0], (at[1] + values[0]) / 2
        at = (at[0], values[0]) if command == "V" else (values[-2], values[-1])
