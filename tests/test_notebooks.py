"""The notebooks of the site: each runs, gives what is stored in it, and holds nothing of the machine that ran it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.docs.pages import anchors, lost_paths, unknown_names
from tests.scripts import ROOT, load_script

for _needed in ("nbclient", "nbformat", "ipykernel", "timm", "transformers", "matplotlib", "sklearn", "cv2"):
    pytest.importorskip(_needed)

PAGES = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
MACHINE = re.compile(r"0x[0-9a-f]{6,}|/(?:home|root|tmp|usr|Users|opt)/|\d (?:s|seconds|ms)\b|it/s")
RELATIVE, ABSOLUTE = 0.5, 20.0
"""How far a measure may be from the stored one: other processors round otherwise, and short trainings part there."""

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:zmq", "ignore::DeprecationWarning:jupyter_client")


@pytest.fixture(scope="module")
def book() -> ModuleType:
    return load_script("docs/notebooks/execute.py")


def outputs(notebook: Any) -> list[list[tuple[str, str]]]:
    """Of each cell that runs what it gives: printed text, and of what is shown or raised its kind."""
    found = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            found.append([
                (each["output_type"], each["text"] if "text" in each else " ".join(sorted(each.get("data", {}))))
                for each in cell["outputs"]
            ])  # fmt: skip
    return found


def differences(stored: str, given: str) -> list[str]:
    """Where two texts differ: words and whole numbers at all, numbers with a point by more than they may."""
    if NUMBER.sub("#", stored) != NUMBER.sub("#", given):
        return [f"{stored!r} is stored, {given!r} is given"]
    found = []
    for old, new in zip(NUMBER.findall(stored), NUMBER.findall(given), strict=True):
        measure = "." in old and "." in new
        if measure:
            a, b = float(old), float(new)
            near = abs(a - b) <= (ABSOLUTE if max(a, b) > 10 else RELATIVE * max(a, b, 1))
        if old != new and not (measure and near):
            found.append(f"{old} is stored, {new} is given in {given!r}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_it_runs_and_gives_what_is_stored(page: Path, book: ModuleType) -> None:
    stored, given = (
        outputs(each) for each in (book.nbformat.read(page, as_version=4), book.stable(book.execute(page)))
    )
    assert len(stored) == len(given)
    stale = []
    for number, (old, new) in enumerate(zip(stored, given, strict=True)):
        if [kind for kind, _ in old] != [kind for kind, _ in new]:
            stale.append(f"cell {number}: {old} is stored, {new} is given")
        else:
            stale += [
                f"cell {number}: {each}" for (_, a), (_, b) in zip(old, new, strict=True) for each in differences(a, b)
            ]
    assert not stale, f"run python docs/notebooks/execute.py {page.relative_to(ROOT)}: {stale}"


def test_what_counts_as_stale() -> None:
    assert differences("exit 1: 87.1 % of 450", "exit 1: 88.0 % of 450") == []
    assert differences("exit 1: 87.1 % of 450", "exit 1: 47.1 % of 450") != []
    assert differences("loss 0.30", "loss 0.52") == [] and differences("loss 0.30", "loss 2.30") != []
    assert differences("exit 1: 87.1", "exit 2: 87.1") != [] and differences("a 1", "b 1") != []
    assert differences("(256, 10)", "(256, 11)") != []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_it_is_stored_whole_and_in_its_one_form(page: Path, book: ModuleType) -> None:
    notebook = book.nbformat.read(page, as_version=4)
    book.nbformat.validate(notebook)
    text = page.read_text(encoding="utf-8")
    assert text == book.text_of(book.stable(notebook)), "write it by python docs/notebooks/execute.py"
    assert len(text) < 300_000
    shown = [text for cell in outputs(notebook) for _, text in cell]
    assert any("image/png" in text for text in shown), "shows no picture"
    assert [text for text in shown if MACHINE.search(text)] == []
    settings = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert settings.metadata == {"tags": ["parameters"]}, "the settings stand first, where papermill looks for them"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_words_lead_somewhere(page: Path) -> None:
    assert page.stem in {Path(line).stem for line in listed() if line.startswith("notebooks/")}, "not on the site"
    cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://")):
            path, _, anchor = target.partition("#")
            file = page.parent / path
            assert file.is_file() and (not anchor or anchor in anchors(file)), target
    assert (lost_paths(page, text), unknown_names(text)) == ([], [])
    assert "../when.md" in text and "Do not expect" in text


def listed() -> list[str]:
    """What stands in a table of contents of the site."""
    return [line for page in (ROOT / "docs").glob("*.md") for line in page.read_text(encoding="utf-8").splitlines()]
