"""What is installed, and that it is the same from a checkout and from a wheel."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import cycledistill

ROOT = Path(__file__).resolve().parents[1]
INTEGRATIONS = ROOT / "integrations"
SITE_PACKAGES = Path(torch.__file__).parents[1]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built with the installed setuptools."""
    folder = tmp_path_factory.mktemp("wheel")
    # A build leaves build/ and *.egg-info beside what it builds: build a copy, so that no stale file can get in.
    source = folder / "source"
    rubbish = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "outputs", "venv")
    shutil.copytree(ROOT, source, symlinks=True, ignore=rubbish)
    link = source / "cycledistill" / "integrations"
    link.unlink()
    link.write_text("../integrations")  # what git leaves in its place on Windows: nothing is built from it
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


def installed_name(path: Path) -> str:
    inside = path.relative_to(ROOT).as_posix()
    return f"cycledistill/{inside}" if INTEGRATIONS in path.parents else inside


@pytest.mark.slow
def test_wheel_holds_the_library_and_nothing_else(wheel: Path) -> None:
    modules = [*(ROOT / "cycledistill").rglob("*.py"), *INTEGRATIONS.rglob("*.py")]
    configs = [path for end in ("*.yaml", "*.yml", "*.json", "*.txt") for path in INTEGRATIONS.rglob(end)]
    templates = (ROOT / "cycledistill").rglob("*.jinja")
    expected = {installed_name(path) for path in (*modules, *configs, *templates)} | {"cycledistill/py.typed"}
    info = f"cycledistill-{cycledistill.__version__}.dist-info/"
    found = {name for name in zipfile.ZipFile(wheel).namelist() if not name.startswith(info)}
    assert found == expected, f"missing {sorted(expected - found)}, not ours {sorted(found - expected)}"


def test_wheel_states_version_licence_and_extras(wheel: Path) -> None:
    info = f"cycledistill-{cycledistill.__version__}.dist-info/"
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(info + "METADATA").decode()
        assert archive.read(info + "licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    extras = {line.split(": ")[1] for line in metadata.splitlines() if line.startswith("Provides-Extra: ")}
    assert extras == {
        "imagenet",
        "coco",
        "human36m",
        "hdf5",
        "faster",
        "torchcodec",
        "transformers",
        "insight",
        "onnx",
        "all",
        "dev",
        "docs",
    }
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist: ") and "extra ==" not in line]
    assert [line.split(">=")[0] for line in required] == ["Requires-Dist: torch"]


@pytest.mark.slow
@pytest.mark.parametrize("origin", ["checkout", "wheel"])
def test_every_package_imports_the_same(origin: str, wheel: Path, tmp_path: Path) -> None:
    """With neither an editable install nor the repository's own folder to help (-S: no .pth file is read)."""
    home = ROOT
    if origin == "checkout" and not (ROOT / "cycledistill" / "integrations").is_dir():
        pytest.skip("git made no link here: the integrations are there once installed, not in a bare checkout")
    if origin == "wheel":
        home = tmp_path / "site"
        zipfile.ZipFile(wheel).extractall(home)
    names = ["cycledistill", *(f"cycledistill.{name}" for name in ("integrations", *integration_names()))]
    code = f"import sys; sys.path[:0] = {[str(home), str(SITE_PACKAGES)]!r}\n"
    code += "".join(f"import {name}; print({name}.__file__)\n" for name in names)
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for place in done.stdout.split():
        assert place.startswith(os.fspath(home)), place


def integration_names() -> list[str]:
    return sorted(f"integrations.{path.parent.name}" for path in INTEGRATIONS.glob("*/__init__.py"))


def test_hugging_face_transformers_is_not_shadowed() -> None:
    """The integration, and any test folder, of that name must stay inside a package."""
    spec = importlib.util.find_spec("transformers")
    if spec is None:
        pytest.skip("transformers is not installed")
    assert spec.origin is not None
    assert ROOT / "integrations" not in Path(spec.origin).parents
    assert ROOT / "tests" not in Path(spec.origin).parents


def test_the_oldest_versions_that_are_tested_are_those_that_are_promised() -> None:
    lines = [line.split("#")[0].strip() for line in (ROOT / "pyproject.toml").read_text().splitlines()]
    extras = lines[lines.index("dependencies = [") : lines.index("dev = [")]
    bounds = {tuple(line.strip('",').split(">=")) for line in extras if line.startswith('"') and "[" not in line}
    pins = (ROOT / "constraints" / "floor.txt").read_text().splitlines()
    assert {tuple(line.split("==")) for line in pins if not line.startswith("#")} == bounds
