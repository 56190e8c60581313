"""Draw what imports what, from the code: ``python docs/structure/draw.py`` writes the pictures of "How it works".

A box is a package, or a file that stands beside packages; an arrow goes from what imports to what is imported. Arrows
that a longer way implies are left out, and a box stands above all that it imports. ``tests/test_structure.py`` holds
the committed pictures to the code.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path

from cycledistill.files import atomic_write
from cycledistill.insight.pages import render

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
Graph = dict[str, set[str]]
Arrow = tuple[str, str]
Slot = str | tuple[str, str, int]

WIDTH, HEIGHT, GAP, ROW, LANE = 116, 34, 18, 92, 6


def imported(path: Path, module: str) -> Iterator[str]:
    """Full names of what a file imports, also inside functions; ``module`` is the file's own name."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def modules(folder: Path, package: str) -> Iterator[tuple[str, Path]]:
    """Every module below a folder, by its full name."""
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder).with_suffix("").parts
        if "integrations" in inside[:1] or "configs" in inside:
            continue
        yield ".".join((package, *(part for part in inside if part != "__init__"))), path


def rooms(folder: Path, package: str) -> Graph:
    """What each package or file right below ``package`` imports of the others, its own face apart."""

    def room(name: str) -> str:
        return name[len(package) + 1 :].split(".")[0] if name.startswith(f"{package}.") else ""

    known = {room(name) for name, _ in modules(folder, package)} - {"", "__main__"}
    graph: Graph = {name: set() for name in known}
    for name, path in modules(folder, package):
        if room(name) in known:
            found = {room(each) for each in imported(path, name)}
            graph[room(name)] |= found & known - {room(name)}
    return graph


def floors(graph: Graph) -> dict[str, int]:
    """How many rooms are stacked below each one, along the longest way down.

    Raises:
        ValueError: Rooms import each other in a circle.
    """
    found: dict[str, int] = {}

    def floor(name: str, above: tuple[str, ...]) -> int:
        if name in above:
            raise ValueError(f"a circle of imports: {' -> '.join((*above, name))}")
        if name not in found:
            found[name] = max((1 + floor(each, (*above, name)) for each in sorted(graph[name])), default=0)
        return found[name]

    for name in sorted(graph):
        floor(name, ())
    return found


def without_implied(graph: Graph) -> Graph:
    """The arrows that no longer way implies."""

    def below(name: str) -> set[str]:
        return set().union(*({each} | below(each) for each in graph[name])) if graph[name] else set()

    return {name: {each for each in out if not any(each in below(o) for o in out)} for name, out in graph.items()}


def laid_out(graph: Graph, arrows: Graph) -> tuple[list[list[Slot]], dict[Arrow, list[Slot]]]:
    """The slots of each row, the highest floor on top, and those that each arrow goes through.

    A slot is a room, or a place kept free in a row that an arrow passes. Each row is sorted by what it hangs on, from
    the top and then from the bottom, twice, so that few arrows cross.
    """
    height = floors(graph)
    top = max(height.values())
    rows: list[list[Slot]] = [sorted(name for name in graph if height[name] == level) for level in range(top, -1, -1)]
    ways: dict[Arrow, list[Slot]] = {}
    for name, out in sorted(arrows.items()):
        for each in sorted(out):
            passed = range(height[name] - 1, height[each], -1)
            ways[name, each] = [name, *((name, each, level) for level in passed), each]
            for level in passed:
                rows[top - level].append((name, each, level))
    links = [pair for way in ways.values() for pair in pairwise(way)]

    def sort(row: list[Slot], beside: list[Slot]) -> None:
        place = {slot: Fraction(number + 1, len(beside) + 1) for number, slot in enumerate(beside)}
        near: dict[Slot, list[Fraction]] = {slot: [] for slot in row}
        for ends in links:
            for slot, other in (ends, ends[::-1]):
                if slot in near and other in place:
                    near[slot].append(place[other])
        # Fractions, since a sum of floats differs between versions of Python, and with it which of two equals is first.
        row.sort(key=lambda slot: sum(near[slot]) / len(near[slot]) if near[slot] else Fraction(1))

    for _ in range(2):
        for upper, lower in pairwise(rows):
            sort(lower, upper)
        for lower, upper in pairwise(rows[::-1]):
            sort(upper, lower)
    return rows, ways


def picture(graph: Graph, title: str) -> str:
    """The graph as SVG, the highest floor on top. No arrow passes behind a box."""
    rows, ways = laid_out(graph, without_implied(graph))

    def width(slot: Slot) -> int:
        return WIDTH if isinstance(slot, str) else LANE

    wide = max(sum(width(slot) + GAP for slot in row) for row in rows) + GAP
    tall = (len(rows) - 1) * ROW + HEIGHT + 40
    places: dict[Slot, tuple[float, float]] = {}  # the middle of a slot's upper edge
    for number, row in enumerate(rows):
        left = (wide - sum(width(slot) + GAP for slot in row) + GAP) / 2
        for slot in row:
            places[slot] = (left + width(slot) / 2, 20 + number * ROW)
            left += width(slot) + GAP
    return render(
        HERE / "picture.svg.jinja",
        title=title,
        wide=wide,
        tall=tall,
        width=WIDTH,
        height=HEIGHT,
        arrows=[_arrow(way, places) for way in ways.values()],
        boxes=[
            {"name": name, "left": x - WIDTH / 2, "top": y, "middle": x, "line": y + HEIGHT / 2 + 4.5}
            for name, (x, y) in ((name, places[name]) for name in sorted(graph))
        ],
    )


def _arrow(way: list[Slot], places: dict[Slot, tuple[float, float]]) -> str:
    """The path of an arrow through its slots, as SVG writes it."""
    x, y = places[way[0]]
    drawn = [f"M{x:g} {y + HEIGHT:g}"]
    for slot in way[1:]:
        (x, y), (to_x, to_y) = (x, y + HEIGHT), places[slot]
        drawn.append(f"C{x:g} {(y + to_y) / 2:g} {to_x:g} {(y + to_y) / 2:g} {to_x:g} {to_y:g}")
        if not isinstance(slot, str):
            drawn.append(f"V{to_y + HEIGHT:g}")
        x, y = to_x, to_y
    return " ".join(drawn)


def integrations() -> Graph:
    """The integrations, and the library as one box."""
    prefix = "cycledistill.integrations"
    faces = sorted((ROOT / "integrations").glob("*/__init__.py"))
    graph: Graph = {"cycledistill": set()}
    for folder in (face.parent for face in faces):
        names = {each for name, path in modules(folder, f"{prefix}.{folder.name}") for each in imported(path, name)}
        others = {face.parent.name for face in faces} - {folder.name}
        graph[folder.name] = {each for each in others if any(f"{n}.".startswith(f"{prefix}.{each}.") for n in names)}
        graph[folder.name].add("cycledistill")
    return graph


def pictures() -> dict[str, str]:
    """File name to content."""
    graphs = {
        "integrations": integrations(),
        "library": rooms(ROOT / "cycledistill", "cycledistill"),
        "recipes": rooms(ROOT / "cycledistill" / "recipes", "cycledistill.recipes"),
    }
    for name in ("coco", "human36m", "imagenet", "multiview"):
        graphs[name] = rooms(ROOT / "integrations" / name, f"cycledistill.integrations.{name}")
    return {f"{name}.svg": picture(graph, f"{name}: what imports what") for name, graph in graphs.items()}


def main() -> int:
    """Write the pictures beside this file."""
    for name, content in pictures().items():
        atomic_write(HERE / name, partial(Path.write_text, data=content, encoding="utf-8"))
        sys.stdout.write(f"{HERE / name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
