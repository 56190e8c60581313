"""``pytest -m gpu`` is every test marked so, and reads little else."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import GPU_TESTS, TESTS
from tests.scripts import ROOT


def collected(*arguments: str) -> tuple[list[str], int]:
    """The tests that pytest would run, and how many of those it read it would not."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n0", "-p", "no:cacheprovider", *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    left_out = re.search(r"(\d+) deselected", done.stdout)
    return [line for line in done.stdout.splitlines() if "::" in line], int(left_out[1]) if left_out else 0


@pytest.mark.slow
def test_the_marker_is_on_every_test_of_the_folder_and_few_other_files_are_read() -> None:
    marked, left_out = collected("-m", "gpu")
    (whole, none) = collected("tests/gpu")
    assert [test for test in marked if test.startswith("tests/gpu/")] == whole and none == 0
    assert len(whole) > 60
    assert left_out < 300, "files that hold no test of a GPU were imported"


def test_marked_tests_stand_in_the_folders_that_are_read() -> None:
    folders = [folder for folder in GPU_TESTS if folder.is_dir()]
    assert folders == list(GPU_TESTS)
    using = [path for path in TESTS.rglob("*.py") if "mark." + "gpu" in path.read_text(encoding="utf-8")]
    astray = [path for path in using if not any(folder in path.parents for folder in folders)]
    assert using and astray == []
