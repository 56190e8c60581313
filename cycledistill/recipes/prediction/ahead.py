"""A few results ahead of who takes them, in order, by threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 4
"""Results that wait, at most: what this holds in memory is so many pictures."""


def in_order(work: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
    """``map(work, items)``, where threads do the work of the next `AHEAD` items meanwhile.

    An error is raised at its item. Nothing that was yielded is kept here. Who leaves before the end closes it: left to
    the garbage collector, it might be closed by one of its own threads, which cannot wait for itself.
    """
    pool = ThreadPoolExecutor(min(AHEAD, os.cpu_count() or 1), "pictures")
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) == AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
