"""A package that is older than pyproject.toml asks for is refused, wherever it is imported."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from cycledistill import versions
from cycledistill.commands.frame import main
from cycledistill.versions import VersionError, require
from tests.architecture import ROOT, Code, Module
from tests.arrows import INTEGRATIONS, LIBRARY
from tests.rules import parts_of, read_code

PYPI = {"PIL": "pillow", "cv2": "opencv-python-headless", "yaml": "pyyaml"}
"""Packages that are imported by another name than they are installed by."""


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """What is installed, to be filled in; the requirements are those below."""
    found: dict[str, str] = {}
    asked = [
        "torch>=2.11",
        'timm>=1.0.31; extra == "imagenet"',
        'Hugging_Face.hub[all] >=1.0,!=1.3 ; extra == "coco"',
        'accelerate>=1.1; extra == "transformers"',
        "accelerate>=1.0; extra == 'imagenet'",
        "accelerate>=1.2; extra == 'coco'",
        'onnxruntime; extra == "onnx"',
        'pywin32>=300; sys_platform == "win32"',
        "cycledistill[coco]; extra == 'all'",
        'mypy~=2.4.1; extra == "dev"',
    ]

    def version(package: str) -> str:
        if package not in found:
            raise metadata.PackageNotFoundError(package)
        return found[package]

    monkeypatch.setattr(metadata, "requires", lambda _: asked)
    monkeypatch.setattr(metadata, "version", version)
    forget()
    yield found
    monkeypatch.undo()
    forget()


def forget() -> None:
    versions._floors.cache_clear()
    versions._installed.cache_clear()


@pytest.mark.parametrize(
    ("package", "version", "asked"),
    [
        ("torch", "2.9.1+cu128", "2.11"),
        ("torch", "2.10.9", "2.11"),
        ("timm", "1.0.28", "1.0.31"),
        ("timm", "1.0", "1.0.31"),
        ("hugging-face-hub", "0.36", "1.0"),
        ("Hugging_Face.Hub", "0.36", "1.0"),
        ("accelerate", "0.34.2", "1.0"),  # the oldest that any extra takes
    ],
)
def test_older_ones_are_refused(here: dict[str, str], package: str, version: str, asked: str) -> None:
    here[package] = version
    with pytest.raises(VersionError) as raised:
        require(package)
    assert raised.value.name == package
    assert str(raised.value) == (
        f"cycledistill needs {package} {asked} or newer, and {version} is installed: "
        f"pip install --upgrade '{package}>={asked}'"
    )


@pytest.mark.parametrize(
    ("package", "version"),
    [
        ("torch", "2.11.0"),
        ("torch", "2.11"),
        ("torch", "2.11.0a0+5228986c39.nv26.01"),  # what a vendor's image holds
        ("torch", "3.0.0.dev20261126"),
        ("accelerate", "1.0.1"),
        ("onnxruntime", "0.1"),  # no floor
        ("pywin32", "1"),  # not on every system, so not judged
        ("mypy", "0.1"),
        ("another", "0.1"),
        ("torch", "a checkout"),
    ],
)
def test_others_pass(here: dict[str, str], package: str, version: str) -> None:
    here[package] = version
    require(package)


def test_what_has_no_metadata_passes(here: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    require("torch", "timm")  # none is installed

    def unknown(package: str) -> list[str]:
        raise metadata.PackageNotFoundError(package)

    here["torch"] = "1.0"
    monkeypatch.setattr(metadata, "requires", unknown)
    forget()
    require("torch")
    monkeypatch.setattr(metadata, "requires", lambda _: None)
    forget()
    require("torch")


def test_the_floors_are_those_of_this_project() -> None:
    forget()
    floors = versions._floors()
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert floors["torch"] == re.search(r'"torch>=([\d.]+)"', text)[1]  # type: ignore[index]
    assert {"timm", "accelerate", "pycocotools", "transformers", "onnx"} <= set(floors)


@pytest.mark.parametrize(
    ("module", "package"), [("cycledistill.plugin", "torch"), ("cycledistill.integrations.imagenet", "timm")]
)
def test_an_import_is_refused(here: dict[str, str], module: str, package: str) -> None:
    loaded = importlib.import_module(module)
    forget()
    here[package] = "1.0"
    with pytest.raises(VersionError, match=f"needs {package} .* and 1.0 is installed"):
        importlib.reload(loaded)
    here[package] = "99.0"
    versions._installed.cache_clear()
    importlib.reload(loaded)


def test_a_command_ends_in_one_line(
    here: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here["timm"] = "0.9"
    assert main(["stacks", "deit_tiny_patch16_224"]) == 2
    assert capsys.readouterr().err == (
        "cycledistill: cycledistill needs timm 1.0.31 or newer, and 0.9 is installed: "
        "pip install --upgrade 'timm>=1.0.31'\n"
    )


def test_nothing_is_asked_before_torch_is_wanted() -> None:
    program = "import sys, cycledistill; print('importlib.metadata' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path[:0] = [{str(ROOT)!r}]; {program}"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout.split() == ["False", "False"]


def asked_in(module: Module) -> set[str]:
    """The packages that calls of ``require`` in a file name."""
    calls = (node for node in ast.walk(module.tree) if isinstance(node, ast.Call))
    named = (call for call in calls if ast.unparse(call.func) in {"require", "versions.require"})
    return {arg.value for call in named for arg in call.args if isinstance(arg, ast.Constant)}


def unasked(code: Code, floors: set[str]) -> Iterator[str]:
    """Imports of a package with a floor, where neither the file nor what it loads asks for the version."""
    asked = {name: asked_in(module) for name, module in code.modules.items()}
    for name, module in code.modules.items():
        outside = {each.name.partition(".")[0] for each in module.imports} - {LIBRARY, *sys.stdlib_module_names}
        wanted = {PYPI.get(each, each) for each in outside} & floors
        if wanted and not parts_of(name)[1][0] == "mmpose":  # asks for versions of its own
            loaded = {name, *code.loaded_by([name])}
            missing = wanted - set().union(*(asked[each] for each in loaded))
            yield from (f"{name} imports {each}" for each in sorted(missing))


def test_every_import_of_a_package_with_a_floor_asks_for_it() -> None:
    forget()
    assert list(unasked(read_code(ROOT), set(versions._floors()) - {"torch"})) == []


def test_an_import_that_does_not_ask_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "integrations"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "a.py").write_text("import cv2\nfrom cycledistill.integrations.b import x")
    (folder / "b.py").write_text("import yaml\nfrom cycledistill.versions import require\nrequire('pyyaml')")
    code = Code({folder: INTEGRATIONS})
    floors = {"opencv-python-headless", "pyyaml"}
    assert list(unasked(code, floors)) == [f"{INTEGRATIONS}.a imports opencv-python-headless"]
