"""What is filled into a template is escaped, and all that a template names must be given."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cycledistill.insight.pages import render
from tests.architecture import ROOT

jinja2 = pytest.importorskip("jinja2")
MARKUP = ("<!doctype", "<html", "<table", "<svg", "</")


class Tags(HTMLParser):
    """The tags of a page and its text, as Python's own parser reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_what_is_filled_in_is_text(tmp_path: Path) -> None:
    template = tmp_path / "a.html.jinja"
    template.write_text('<p title="{{ name }}">{{ name }}</p>\n')
    name = """<script>alert("a" & 'b')</script>"""
    found = Tags(render(template, name=name))
    assert found.tags == ["p"] and found.attributes == [("title", name)] and found.text.strip() == name


def test_what_lacks_is_an_error(tmp_path: Path) -> None:
    template = tmp_path / "a.html.jinja"
    template.write_text("{{ name }}")
    with pytest.raises(jinja2.UndefinedError, match="name"):
        render(template, title="a")


def test_without_jinja2_is_said_what_to_install(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(ImportError, match=r'pip install "cycledistill\[insight\]"'):
        render(tmp_path / "a.html.jinja")


def test_no_page_is_put_together_from_strings() -> None:
    """Markup stands in templates, where all that is filled in is escaped."""
    folders = [ROOT / name for name in ("cycledistill", "integrations", "benchmarks", "docs", "examples")]
    texts = {path: path.read_text(encoding="utf-8").lower() for folder in folders for path in folder.rglob("*.py")}
    assert [str(path) for path, text in texts.items() if any(mark in text for mark in MARKUP)] == []
