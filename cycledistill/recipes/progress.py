"""Where long work is: a bar in a terminal, and where there is none lines in the log, with how long it will be."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from cycledistill.versions import require

require("tqdm")
_logger = logging.getLogger(__name__)

EVERY = 15.0
"""Seconds from one line to the next of what has no step to log at."""

T = TypeVar("T")


class Pace:
    """How fast work is, and how long it will be: for lines where no bar is shown.

    Args:
        last: Where it will end, counted in steps; None: nobody knows, as of a camera.
        unit: What a step is made of, in words.
        per_step: How many of them.
    """

    def __init__(self, last: int | None, unit: str, per_step: int = 1):
        self.last, self.unit, self.per_step = last, unit, per_step
        self.begin(0)

    def begin(self, step: int) -> None:
        """Start to measure, at this step."""
        self.first = self.step = step
        self.began = self.since = time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside the context time does not count for the rate, as of an evaluation; for what is left it does."""
        stopped = time.monotonic()
        try:
            yield
        finally:
            self.since += time.monotonic() - stopped

    def line(self, step: int) -> str:
        """``"120 images a second, 0:05:10 left"``: the rate since the last line, the time at the pace since the start.

        What comes once in many steps (evaluations, checkpoints) is in the mean of all steps, and not in that of the
        last ones.
        """
        now = time.monotonic()
        rate = (step - self.step) / max(now - self.since, 1e-9)
        self.step, self.since = step, now
        said = f"{rate * self.per_step:.3g} {self.unit} a second"
        if self.last is None or step > self.last:  # a stream may hold more than it said
            return said
        if step == self.first:
            return f"{said}, ? left"
        left = (self.last - step) * (now - self.began) / (step - self.first)
        return f"{said}, {timedelta(seconds=round(left))} left"


def open_bar(items: Iterable[T], what: str, *, shown: bool, **options: Any) -> Any:
    """A bar of tqdm around ``items``, whose ``disable`` is true where it is not to be ``shown`` or has no terminal.

    Args:
        items: What is gone through.
        what: The word before the bar.
        shown: Whether anybody is to see it.
        **options: Of tqdm.
    """
    from tqdm import tqdm  # comes with the integrations

    return tqdm(items, what, disable=None if shown else True, **options)


def with_progress(
    items: Iterable[T], what: str, unit: str, total: int | None = None, *, shown: bool = True, leave: bool = False
) -> Iterator[T]:
    """The items one by one, while a bar or, without a terminal, a line every `EVERY` seconds says how many are done.

    Args:
        items: What is gone through.
        what: What is done with them, in a word.
        unit: What they are, more than one of them.
        total: How many there are; default, their length, if they have one.
        shown: Whether anybody is to see it.
        leave: Whether the bar stays when all is done.

    Example:
        >>> for batch in with_progress(loader, "evaluate", "batches"):
        ...     model(batch)
    """
    if not shown:
        yield from items
        return
    bar = open_bar(items, what, shown=True, total=total, leave=leave, unit=f" {unit}")
    if not bar.disable:
        yield from bar
        return
    of, pace = "" if bar.total is None else f" of {bar.total}", Pace(bar.total, unit)
    _logger.info("%s: 0%s %s", what, of, unit)
    for done, item in enumerate(bar, start=1):
        yield item
        if time.monotonic() - pace.since >= EVERY:
            _logger.info("%s: %d%s %s, %s", what, done, of, unit, pace.line(done))
