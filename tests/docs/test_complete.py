"""What a reader must find is documented: guides, public names, fields, presets, extras, the two commands."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import re

import pytest

import cycledistill
from cycledistill.distill import PRESETS
from tests.docs.pages import INTEGRATIONS, PAGES, ROOT, pyproject

REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))
ABOUT_THE_SITE = {"index", "tour", "gallery", "results", "alternatives", "faq", "reference", "changelog", "citation"}


def test_every_guide_is_there_and_linked() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")}
    guides = pages - ABOUT_THE_SITE
    listed = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").splitlines()
    assert pages - {"index"} - set(listed) == set(), "not in the contents of the site"
    assert guides >= {"wrap", "distillation", "training", "anytime", "cost", "limits"}
    assert [guide for guide in guides if f"(docs/{guide}.md)" not in readme] == []


def test_the_two_commands_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert 'pip install -e ".[all]" && python examples/imagenet_deit.py\n' in readme
    assert 'pip install -e ".[dev]" && pytest\n' in readme


def test_every_public_name_is_documented() -> None:
    reference = "\n".join(page.read_text(encoding="utf-8") for page in REFERENCE)
    assert [
        name for name in cycledistill.__all__ if not re.search(rf":: (cycledistill\.)?{name}$", reference, re.M)
    ] == []
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [name for name in cycledistill.__all__ if not re.search(rf"\b{name}\b", text)] == []
    handle = [name for name in ("cycles", "exit", "distill", "stack") if f"model.cyclic.{name}" not in text]
    assert handle == []


@pytest.mark.parametrize("name", INTEGRATIONS)
def test_every_name_of_an_integration_stands_in_the_reference(name: str) -> None:
    module = importlib.import_module(f"cycledistill.integrations.{name}")
    within, listed = "", set()
    reference = "\n".join(page.read_text(encoding="utf-8") for page in REFERENCE)
    for directive, target in re.findall(r"^\.\. (\w+):: ([\w.]+)$", reference, re.MULTILINE):
        if directive == "currentmodule":
            within = f"{target}."
        elif directive in ("autofunction", "autoclass", "autoexception"):
            listed.add(target if target.startswith("cycledistill.") else within + target)
    assert [each for each in module.__all__ if f"{module.__name__}.{each}" not in listed] == []
    assert [each for each in module.__all__ if not (getattr(module, each).__doc__ or "").strip()] == []


def test_every_page_of_the_reference_is_listed_and_of_a_module() -> None:
    listed = re.findall(r"^reference/(.+)$", (ROOT / "docs" / "reference.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(page.stem for page in REFERENCE)
    assert [name for name in listed if importlib.util.find_spec(name) is None] == []
    assert {name for name in listed if ".integrations." in name} == {
        f"cycledistill.integrations.{name}" for name in INTEGRATIONS
    }


def test_every_field_and_preset_of_the_scheme_is_documented() -> None:
    text = (ROOT / "docs" / "distillation.md").read_text(encoding="utf-8")
    fields = [field.name for field in dataclasses.fields(cycledistill.Distill)]
    assert [name for name in fields if f"`{name}`" not in text] == []
    assert [name for name in PRESETS if f'`"{name}"`' not in text] == []


def test_every_extra_is_documented_and_none_is_fetched_from_where_it_is_not() -> None:
    declared = pyproject()["project"]["optional-dependencies"]
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    table = text[text.index("| extra |") :].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(declared)
    by_name = re.compile(r"pip install [\"']?cycledistill")  # CONTRIBUTING, "Releases": not on PyPI yet
    assert [page.name for page in PAGES if by_name.search(page.read_text(encoding="utf-8"))] == []
