"""A run that is asked to stop finishes its step, saves, and says how to go on; a second request ends it at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

pytest.importorskip("accelerate")
pytest.importorskip("timm")

from cycledistill.recipes.run.guard import signals
from cycledistill.recipes.run.guard.signals import SIGNALS, StopRequest, heeded, held, noted, spare_workers
from cycledistill.recipes.run.step import Inputs
from tests.recipes.run.toy import ToyRecipe, ToySession, change, load_recipe, train
from tests.recipes.run_checks import assert_same_state, last, rows


@pytest.fixture
def tiny(tmp_path: Path) -> ToyRecipe:
    """Two epochs of four steps."""
    return load_recipe(
        {
            "ema": {"enabled": True, "decay": 0.9},
            "run": {"output": str(tmp_path / "run"), "device": "cpu", "log_every": 3, "progress": False},
        }
    )


@pytest.fixture(autouse=True)
def handlers_are_put_back() -> Iterator[None]:
    given = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in a shell's background
    try:
        yield from _put_back()
    finally:
        signal.signal(signal.SIGINT, given)


def _put_back() -> Iterator[None]:
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


def asked(number: int, step: int, times: int = 1) -> type[ToySession]:
    """A session to which a signal comes while it computes a step."""

    class Asked(ToySession):
        def terms(self, inputs: Inputs, logs: bool) -> dict[str, Tensor]:
            for _ in range(times if self.step == step else 0):
                os.kill(os.getpid(), number)
            return super().terms(inputs, logs)

    return Asked


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "step"),
    [*((number, 1) for number in SIGNALS), (signal.SIGTERM, 3), (signal.SIGTERM, 6)],
    ids=[*(signal.Signals(number).name for number in SIGNALS), "last step of an epoch", "in the second epoch"],
)
def test_the_step_is_finished_and_saved_and_the_run_goes_on_bit_for_bit(
    tiny: ToyRecipe, tmp_path: Path, number: int, step: int
) -> None:
    whole = change(tiny, run__output=str(tmp_path / "whole"))
    train(whole)
    with pytest.raises(StopRequest) as stopped, heeded():
        train(tiny, session_class=asked(number, step))
    assert stopped.value.code == (130 if number == signal.SIGINT else 143)
    assert last(tiny).name == f"step-{step + 1:08d}"
    torch.manual_seed(123)  # a new process has other generators
    with heeded():
        assert train(tiny, resume="auto")["finished"]
    assert_same_state(last(whole), last(tiny))
    for kind in ("train", "eval"):
        assert rows(tiny, kind) == rows(whole, kind)


def test_a_second_signal_ends_at_once(tiny: ToyRecipe) -> None:
    with pytest.raises(StopRequest), heeded():
        train(tiny, session_class=asked(signal.SIGTERM, 1, times=2))
    assert not (Path(tiny.run.output) / "checkpoints").exists()


class AskedWhileMeasuring(ToySession):
    def evaluate(self, **logged: Any) -> dict[str, Any]:
        measured = super().evaluate(**logged)
        os.kill(os.getpid(), signal.SIGTERM)
        return measured


class AskedAtTheStart(ToySession):
    def look_at_validation(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_outside_of_steps_and_saves_one_signal_is_enough(tiny: ToyRecipe, tmp_path: Path) -> None:
    """An evaluation is not waited for: its weights are saved. The run goes on with it, and repeats no row."""
    with pytest.raises(StopRequest), heeded():
        train(tiny, session_class=AskedAtTheStart)
    assert not (Path(tiny.run.output) / "checkpoints").exists()
    with pytest.raises(StopRequest), heeded():
        train(tiny, session_class=AskedWhileMeasuring)
    assert last(tiny).name == "step-00000004"
    assert [row["step"] for row in rows(tiny, "eval")] == [4]
    whole = change(tiny, run__output=str(tmp_path / "whole"))
    train(whole)
    train(tiny, resume="auto")
    assert_same_state(last(whole), last(tiny))
    assert rows(tiny, "eval") == rows(whole, "eval")


def test_a_launchers_repetition_is_the_same_request(tiny: ToyRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun, and the scheduler around it, send to all processes."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "any")
    with pytest.raises(StopRequest), heeded():
        train(tiny, session_class=asked(signal.SIGTERM, 1, times=3))
    assert last(tiny).name == "step-00000002"
    monkeypatch.setattr(signals, "PATIENCE", 0.0)
    with pytest.raises(StopRequest), heeded():
        train(tiny, resume="auto", session_class=asked(signal.SIGTERM, 5, times=2))
    assert last(tiny).name == "step-00000004"  # of the epoch's end: the sixth step was not finished


def test_an_error_is_not_hidden_by_a_signal() -> None:
    with pytest.raises(ValueError, match="the error"), heeded(), held():
        os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError("the error")


def test_who_listens_to_what() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with heeded():
            assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN  # as it was: somebody wants it ignored
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    finally:
        signal.signal(signal.SIGUSR1, before)
    listening = []

    def elsewhere() -> None:
        with heeded():
            listening.append(signals.is_listening())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert listening == [False]
    assert noted() is None


def test_nothing_of_a_listener_outlives_its_block() -> None:
    """Whoever listens next hears what comes then alone; who waits where nobody listens is not told of before."""
    with pytest.raises(StopRequest), heeded():
        os.kill(os.getpid(), signal.SIGTERM)
    assert noted() is None and not signals.is_listening()
    with held():
        pass
    with heeded(), heeded(), held():
        assert noted() is None and signals.is_listening()


def test_a_library_call_has_the_handlers_it_had(tiny: ToyRecipe) -> None:
    """Only a command listens: who calls ``train`` has signals of his own."""
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        assert train(tiny, session_class=asked(signal.SIGTERM, 1))["finished"]
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


class Slow(torch.utils.data.Dataset[int]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        time.sleep(0.02)
        return index


@pytest.mark.slow
def test_workers_outlast_what_is_sent_to_all_processes() -> None:
    """By its loader a worker is still ended, and a worker of a program that does not listen ends as always."""
    with heeded():
        loader = iter(spare_workers(DataLoader(Slow(), num_workers=1)))
        found = [int(next(loader))]
        (worker,) = loader._workers  # type: ignore[attr-defined]
        for number in SIGNALS:
            os.kill(worker.pid, number)
        found += [int(each) for each in loader]
        assert found == list(range(6))
        again = iter(spare_workers(DataLoader(Slow(), num_workers=1)))
        next(again)
        (worker,) = again._workers  # type: ignore[attr-defined]
        for _ in range(2):
            worker.terminate()
            time.sleep(0.3)
        worker.join(10)
        assert worker.exitcode == 0
    assert DataLoader(Slow()).worker_init_fn is None
    assert spare_workers(DataLoader(Slow())).worker_init_fn is None
