"""Runs that are killed, out of disk, or lose a worker or a rank; they go on to the bits of one left alone."""

from __future__ import annotations

import functools
import json
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.faults.kinds import ERROR, RIGHT, Kind
from tests.faults.nursery import Lived, Nursery
from tests.recipes.run_checks import assert_same_state

LAST = "checkpoints/step-00000008"
OPERATIONS = 290  # on files, of a run that is left alone; later ones do not happen
SECONDS = 1.2
DOCUMENTED = ("CheckpointError", "RecipeError")


class Runs:
    """Runs with faults, beside one without for each number of processes."""

    def __init__(self, nursery: Nursery, folder: Path) -> None:
        self.nursery, self.folder = nursery, folder
        self.whole = functools.cache(self._whole)

    def _whole(self, ranks: int) -> Path:
        folder = self.folder / f"whole-{ranks}"
        assert_well(self.nursery.run(folder, ranks))
        return folder

    def check(self, faults: list[dict[str, Any]], ended: Callable[[list[Lived], dict[str, Any]], str]) -> str:
        """One fault after the other, and then none.

        Args:
            faults: As `Nursery.run` takes them.
            ended: Gives what it was that a run with a fault came to, or raises.
        """
        ranks = 2 if any("dead_rank" in fault for fault in faults) else 1
        whole = self.whole(ranks)
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            folder = Path(place) / "run"
            outcomes = [ended(self.nursery.run(folder, ranks, **fault), fault) for fault in faults]
            assert_well(self.nursery.run(folder, ranks))
            assert_same_state(folder / LAST, whole / LAST)
            assert logged(folder) == logged(whole)
            assert files(folder) == files(whole)
        return ERROR if ERROR in outcomes else RIGHT


def assert_well(lived: list[Lived]) -> None:
    assert all(each.signal is None and each.error is None for each in lived), lived


def logged(folder: Path) -> list[dict[str, Any]]:
    """The rows of a log but for the time."""
    found = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in found]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def killed(lived: list[Lived], fault: dict[str, Any]) -> str:
    """It was, or had ended before."""
    (run,) = lived
    assert run.error is None and run.signal in (None, signal.SIGKILL, signal.SIGALRM), run
    return RIGHT


def refused(lived: list[Lived], fault: dict[str, Any]) -> str:
    """The disk was full, and the error says so; or there was room enough."""
    (run,) = lived
    if run.error is None and run.signal is None:
        return RIGHT
    assert run.error in DOCUMENTED, run
    assert "cannot be" in run.message, run
    return ERROR


def worker_died(lived: list[Lived], fault: dict[str, Any]) -> str:
    """PyTorch's own error names the worker; it is not waited for."""
    (run,) = lived
    if run.error is None and run.signal is None:
        return RIGHT  # the item was made before a fault that came earlier
    assert run.error == "RuntimeError" and "DataLoader worker" in run.message, run
    return ERROR


def rank_died(lived: list[Lived], fault: dict[str, Any]) -> str:
    """The other one does not wait for it, and ends by the group's own error."""
    dead, other = lived[fault["dead_rank"][0]], lived[1 - fault["dead_rank"][0]]
    if dead.signal is None and dead.error is None:
        return RIGHT
    assert dead.signal == signal.SIGKILL, lived
    assert other.error in ("RuntimeError", "DistBackendError"), lived
    return ERROR


_MOMENTS = {
    "killed at an operation on files": (st.builds(lambda n: {"kill_at": n}, st.integers(1, OPERATIONS)), killed),
    "killed at any moment": (st.builds(lambda s: {"kill_after": s}, st.floats(0.001, SECONDS)), killed),
    "no space from an operation on": (st.builds(lambda n: {"full_at": n}, st.integers(1, OPERATIONS)), refused),
    "no file beyond a size": (st.builds(lambda b: {"largest": b}, st.integers(0, 9000)), refused),
    "a dead worker": (
        st.builds(lambda *key: {"dead_worker": [*key]}, st.integers(0, 1), st.integers(0, 11)),
        worker_died,
    ),
    "a dead rank": (st.builds(lambda *at: {"dead_rank": [*at]}, st.integers(0, 1), st.integers(0, 7)), rank_died),
}


def run_kinds(runs: Runs) -> list[Kind]:
    """The kinds of faults that befall runs; a case is one or two of a kind, one after the other."""

    def kind(name: str) -> Kind:
        fault, ended = _MOMENTS[name]
        return Kind(name, st.lists(fault, min_size=1, max_size=2), lambda case: runs.check(case, ended))

    return [kind(name) for name in _MOMENTS]


RUN_KINDS = tuple(_MOMENTS)
