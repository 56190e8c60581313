"""Distributions that announce commands, installed for one test; ``tests/conftest.py`` hands the fixture on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Announce = Callable[..., None]


@pytest.fixture
def announce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Announce:
    """Install a distribution that announces commands, with modules of the given text."""

    def install(name: str, commands: dict[str, str], **modules: str) -> None:
        folder = tmp_path / name
        about = folder / f"{name}-1.0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{command} = {value}" for command, value in commands.items()]
        (about / "entry_points.txt").write_text("\n".join(["[cycledistill.commands]", *lines]))
        for module, text in modules.items():
            (folder / f"{module}.py").write_text(text)
            monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.syspath_prepend(folder)

    return install
