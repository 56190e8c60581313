"""Runs that something befalls end by a documented error, and go on to the bits of a run that was left alone."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("accelerate")
pytest.importorskip("timm")

from tests.faults.kinds import hold
from tests.faults.nursery import Nursery
from tests.faults.runs import LAST, RUN_KINDS, Runs, killed, run_kinds

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(sys, "addaudithook") or sys.platform != "linux", reason="forks, and limits files"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with Nursery() as nursery:
        yield Runs(nursery, tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("number", range(len(RUN_KINDS)), ids=list(RUN_KINDS))
def test_a_run_goes_on_to_the_same_bits(runs: Runs, number: int) -> None:
    hold(run_kinds(runs)[number], examples=2)


def test_each_operation_while_a_checkpoint_is_written_may_be_the_last(runs: Runs) -> None:
    """Some of those of the second checkpoint, in turn."""

    def certainly(lived: Any, fault: Any) -> str:
        assert lived[0].signal == signal.SIGKILL
        return killed(lived, fault)

    for number in range(50, 90, 5):
        runs.check([{"kill_at": number}], certainly)


@pytest.mark.parametrize("moment", [3, 23, 143, 187])
def test_what_is_half_written_when_a_run_is_killed_does_not_stay(runs: Runs, moment: int) -> None:
    """A lock; the log of a run that goes on; its table of evaluations; that log at the last checkpoint."""
    runs.check([{"kill_at": 143 if moment == 23 else 1}, {"kill_at": moment}], killed)


def test_another_end_is_noticed(runs: Runs) -> None:
    """The harness itself: a run that goes on from something else does not pass."""

    def spoiled(lived: Any, fault: Any) -> str:
        for checkpoint in runs.folder.glob("tmp*/run/checkpoints/step-*"):
            file = checkpoint / "model.safetensors"
            data = bytearray(file.read_bytes())
            data[-9] ^= 64
            file.write_bytes(data)
        return killed(lived, fault)

    assert runs.whole(1).joinpath(LAST).is_dir()
    with pytest.raises(AssertionError):
        runs.check([{"kill_at": 150}], spoiled)
