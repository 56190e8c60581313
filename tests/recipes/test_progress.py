"""Long work says where it is without a terminal: by the clock, and with how long it will be."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("tqdm")

from cycledistill.recipes.progress import Pace, with_progress
from tests.recipes.run_checks import Terminal

LOGGER = "cycledistill.recipes.progress"


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(f"{LOGGER}.time.monotonic", found)
    return found


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO, LOGGER)
    return lambda: [record.message for record in caplog.records if record.name == LOGGER]


def test_a_pace_is_measured_by_the_clock(clock: Clock) -> None:
    pace = Pace(last=1000, unit="images", per_step=8)
    clock.now = 100
    pace.begin(50)  # 100 seconds passed before, while the run was put together
    clock.now = 110
    assert pace.line(70) == "16 images a second, 0:07:45 left"  # 20 steps in 10 s; 930 are left
    clock.now = 115
    assert pace.line(170) == "160 images a second, 0:01:44 left"  # 100 in 5 s, 120 in 15 s; 830 are left
    assert pace.line(1001) == "6.65e+12 images a second"  # a stream that holds more than it said


def test_an_evaluation_is_in_the_time_left_and_not_in_the_rate(clock: Clock) -> None:
    """Nine steps of a second an epoch, then six seconds of evaluation and checkpoint; a line every ten steps."""
    epochs, length = 200, 9
    pace = Pace(epochs * length, "images")
    told = {}
    for step in range(1, 181):
        clock.now += 1
        if step % 10 == 0:
            told[step] = pace.line(step)
        if step % length == 0:
            with pace.paused():
                clock.now += 6
    assert {each.partition(",")[0] for each in told.values()} == {"1 images a second"}
    truth = epochs * (length + 6) - (80 + 8 * 6)  # of step 80; 0:47:52
    assert told[80] == "1 images a second, 0:45:52 left" and abs(45 * 60 + 52 - truth) < 0.05 * truth


def through(items: Any, clock: Clock, seconds: float, **options: Any) -> list[Any]:
    seen = []
    for item in with_progress(items, "evaluate", "batches", **options):
        seen.append(item)
        clock.now += seconds
    return seen


def test_a_line_at_the_start_and_by_the_clock(clock: Clock, told: Callable[[], list[str]]) -> None:
    assert through(range(10), clock, 6) == list(range(10))
    assert told() == [
        "evaluate: 0 of 10 batches",
        "evaluate: 3 of 10 batches, 0.167 batches a second, 0:00:42 left",  # 18 s; 7 batches of 6 s are left
        "evaluate: 6 of 10 batches, 0.167 batches a second, 0:00:24 left",
        "evaluate: 9 of 10 batches, 0.167 batches a second, 0:00:06 left",
    ]


def test_quick_work_says_that_it_began_alone(clock: Clock, told: Callable[[], list[str]]) -> None:
    through(range(1000), clock, 0.01)
    assert told() == ["evaluate: 0 of 1000 batches"]


@pytest.mark.parametrize(
    ("total", "first", "last"),
    [
        (None, "evaluate: 0 batches", "1 batches, 0.05 batches a second"),
        (4, "evaluate: 0 of 4 batches", "0:01:00 left"),
    ],
)
def test_a_stream_has_no_length_but_the_one_given(
    total: int | None, first: str, last: str, clock: Clock, told: Callable[[], list[str]]
) -> None:
    def stream() -> Iterator[int]:
        yield 1

    through(stream(), clock, 20, total=total)
    assert told()[0] == first and told()[1].endswith(last)


def test_nothing_is_said_that_nobody_is_to_see(clock: Clock, told: Callable[[], list[str]]) -> None:
    assert through(range(3), clock, 60, shown=False) == [0, 1, 2]
    assert told() == []


def test_a_terminal_has_a_bar(clock: Clock, told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    through(range(3), clock, 60)
    assert told() == [] and "evaluate" in terminal.getvalue()
