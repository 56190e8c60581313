"""Ctrl-C before a source that has no end of its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from cycledistill.recipes.prediction.sources import Source


@contextmanager
def interruptible(source: Source) -> Iterator[None]:
    """Ctrl-C ends a camera's frames, which have no end of their own, and what is there is written; a second stops."""
    if not hasattr(source, "stopped") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before: Any = signal.getsignal(signal.SIGINT)

    def hear(number: int, frame: FrameType | None) -> None:
        if source.stopped:
            raise KeyboardInterrupt
        source.stopped = True

    signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
