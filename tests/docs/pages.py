"""Pages of README and the guides: their code blocks, anchors, paths and names."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import re
import sys
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from cycledistill.plugin.plain import SAVED
from tests.scripts import ROOT, load_script

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

pytest.importorskip("timm")
pytest.importorskip("torchvision")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*|\{[\w-]+\}[^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INTEGRATIONS = sorted(path.parent.name for path in (ROOT / "integrations").glob("*/__init__.py"))
GUIDES = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
ABOUT = {
    "lifting": ["human36m", "multiview"],
    "sdpose_coco": ["coco"],
    "mmpose": ["mmpose"],
    "CONTRIBUTING": INTEGRATIONS,
}
NOT_HERE = ("timm/", "runs/")  # of another package, and what a run writes


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@dataclasses.dataclass(frozen=True)
class Fence:
    """A code block of a page; `printed` is the ``text`` block that follows it with nothing but blank lines between."""

    page: str
    line: int
    language: str
    code: str
    printed: str | None


def fences(page: Path) -> list[Fence]:
    text = page.read_text(encoding="utf-8")
    found = list(FENCE.finditer(text))
    result = []
    for match, after in zip_longest(found, found[1:]):
        shown = after is not None and after[1] == "text" and not text[match.end() : after.start()].strip()
        line = text[: match.start(2)].count("\n")
        result.append(Fence(page.name, line, match[1], match[2], after[2] if shown and after is not None else None))
    return result


def anchors(page: Path) -> set[str]:
    text = page.read_text(encoding="utf-8")
    records = load_script("docs/extensions/records.py")
    text = records.filled(text)
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def in_backticks(text: str) -> list[str]:
    return re.findall(r"(?<!`)`([^`]+)`(?!`)", text)


def paths(text: str) -> list[str]:
    """Files and folders in the backticks of a text, ``{a,b}`` written out; a bare word is one if it ends in .py."""
    found = []
    for word in " ".join(in_backticks(text)).split():
        if re.fullmatch(r"[\w./{},-]+", word) and ("/" in word or word.endswith(".py")):
            before, brace, rest = word.partition("{")
            names, _, after = rest.partition("}")
            found += [f"{before}{name}{after}" for name in names.split(",")] if brace else [word]
    return [path for path in found if not path.startswith(NOT_HERE)]


def lost_paths(page: Path, text: str) -> list[str]:
    """Paths of a page that lead nowhere from the places its readers think of."""
    start = [ROOT, ROOT / "cycledistill", ROOT / "integrations", page.parent]
    start += [ROOT / "integrations" / name for name in ABOUT.get(page.stem, ())]
    shown = re.findall(r"^# (\S+\.py)$", text, re.MULTILINE)  # a script that the page holds whole
    lost = []
    for paragraph in re.split(r"\n\s*\n|\n(?=[|*-] ?)", FENCE.sub("", text)):
        named = paths(paragraph)
        there = [base / path for base in start for path in named if "/" in path and (base / path).exists()]
        beside = [path if path.is_dir() else path.parent for path in there]  # a bare name: in a folder just named
        lost += [
            path
            for path in named
            if path not in shown and not any((base / path).exists() for base in [*start, *beside])
        ]
    return lost


def unknown_names(text: str) -> list[str]:
    """Dotted names of the package, in the backticks of a text, that are no module, member or group of entry points."""
    project = pyproject()["project"]
    names = re.findall(r"(?<![\w/.-])cycledistill(?:\.[A-Za-z_]\w*)+", " ".join(in_backticks(FENCE.sub("", text))))
    others = {*project["entry-points"], SAVED}
    return [name for name in names if name not in others and not resolves(name)]


def resolves(name: str) -> bool:
    module, *rest = name.split(".")
    while (
        rest
        and hasattr(importlib.import_module(module), "__path__")
        and importlib.util.find_spec(f"{module}.{rest[0]}")
    ):
        module = f"{module}.{rest.pop(0)}"
        if not rest:  # there; what it needs need not be installed
            return True
    found: object = importlib.import_module(module)
    for member in rest:
        if not hasattr(found, member):
            return False
        found = getattr(found, member)
    return True
