"""``pytest -m gpu`` is all of ``tests/gpu``, and looks at nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.scripts import ROOT


def collected(*arguments: str) -> list[str]:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n0", "-p", "no:cacheprovider", *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "deselected" not in done.stdout, "files that hold no test of a GPU were imported"
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_the_marker_is_on_every_test_of_the_folder_and_no_other_file_is_read() -> None:
    marked = collected("-m", "gpu")
    assert len(marked) > 60
    assert all(test.startswith("tests/gpu/") for test in marked)
    assert sorted(marked) == sorted(collected("tests/gpu"))
