"""``pytest -m gpu`` is every test marked so, and reads little else."""

from __future__ import annotations

import os

import pytest

from tests.conftest import GPU_TESTS, TESTS
from tests.scripts import ROOT
from tests.spawn import alone


class Collected:
    """A plugin that keeps the tests pytest would run, and how many of those it read it would not."""

    def __init__(self) -> None:
        self.tests: list[str] = []
        self.left_out = 0

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self.left_out += len(items)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.tests = [item.nodeid for item in session.items]


def collect(*calls: list[str]) -> list[tuple[list[str], int]]:
    """What each call of pytest collects; in a process of its own, for pytest keeps one state a process."""
    os.environ.pop("PYTEST_ADDOPTS", None)
    options = ["--rootdir", str(ROOT), "--collect-only", "-q", "-n0", "-p", "no:cacheprovider"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # this process has imported some of it
    found = []
    for call in calls:
        seen = Collected()
        assert pytest.main([*options, *call], plugins=[seen]) == 0
        found.append((seen.tests, seen.left_out))
    return found


@pytest.mark.slow
def test_the_marker_is_on_every_test_of_the_folder_and_few_other_files_are_read() -> None:
    (marked, left_out), (whole, none) = alone(collect, ["-m", "gpu", str(TESTS)], [str(TESTS / "gpu")])
    assert [test for test in marked if test.startswith("tests/gpu/")] == whole and none == 0
    assert len(whole) > 60
    assert left_out < 300, "files that hold no test of a GPU were imported"


def test_marked_tests_stand_in_the_folders_that_are_read() -> None:
    folders = [folder for folder in GPU_TESTS if folder.is_dir()]
    assert folders == list(GPU_TESTS)
    using = [path for path in TESTS.rglob("*.py") if "mark." + "gpu" in path.read_text(encoding="utf-8")]
    astray = [path for path in using if not any(folder in path.parents for folder in folders)]
    assert using and astray == []
