"""Signals that ask a training command to stop: noted while a step or a save is under way, raised at once otherwise.

SIGTERM is what schedulers and launchers send, SIGUSR1 what Slurm sends ahead of its time limit, SIGINT is Ctrl-C. A
launcher and the scheduler around it may each send the same request to the same process within moments, so under a
launcher a repetition is heard as a second request only after `PATIENCE` seconds.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from torch.utils.data import DataLoader

T = TypeVar("T")

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
PATIENCE = 5.0
"""Seconds in which a launcher's repetition of a signal is the same request."""


class StopRequest(KeyboardInterrupt):
    """A signal asked this process, or another of the run, to stop; what lets Ctrl-C through lets this through too.

    Example:
        >>> StopRequest(signal.SIGTERM).code, StopRequest(signal.SIGINT).code
        (143, 130)
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number

    @property
    def code(self) -> int:
        """The exit code: 130 for Ctrl-C; 143 for all others, so that a scheduler sees one code for "asked to stop"."""
        return 130 if self.number == signal.SIGINT else 143


class _Listener:
    """What was heard so far, and whether it is to wait. It is found again by the handler that it is."""

    def __init__(self) -> None:
        self.held = False
        self.noted: int | None = None
        self.since = 0.0

    def hear(self, number: int, frame: FrameType | None) -> None:
        """The handler of every signal."""
        if self.noted is not None and _is_launched() and time.monotonic() - self.since < PATIENCE:
            return
        first = self.noted is None
        self.noted, self.since = number, time.monotonic()
        if not (first and self.held):
            raise StopRequest(number)


def _listener() -> _Listener | None:
    """Who listens to this process' signals, if it is one of ours."""
    handlers = (getattr(signal.getsignal(number), "__self__", None) for number in SIGNALS)
    return next((each for each in handlers if isinstance(each, _Listener)), None)


@contextmanager
def heeded() -> Iterator[None]:
    """Listen to the signals inside this block, and put the handlers back that were there before.

    Nothing is listened to outside the main thread, which alone can, and no signal that is ignored already (as Ctrl-C is
    in a job that a shell runs in the background) or that has a handler which Python does not know of.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread() and _listener() is None:
        found = {number: signal.getsignal(number) for number in SIGNALS}
        before = {number: old for number, old in found.items() if old not in (None, signal.SIG_IGN)}
        listener = _Listener()
        for number in before:
            signal.signal(number, listener.hear)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def held() -> Iterator[None]:
    """Let a first signal wait for the end of this block, and raise it there; a second one ends the block at once.

    Raises:
        StopRequest: One was heard in the block, and the block ended without an error.
    """
    listener = _listener() or _Listener()
    listener.held = True
    try:
        yield
    finally:
        listener.held = False
    if listener.noted is not None:
        raise StopRequest(listener.noted)


def is_listening() -> bool:
    """Whether this process listens to the signals."""
    return _listener() is not None


def noted() -> int | None:
    """The signal that waits to be followed, if there is one."""
    listener = _listener()
    return None if listener is None else listener.noted


def spare_workers(loader: DataLoader[T]) -> DataLoader[T]:
    """Let a loader's workers leave signals to the main process, where that listens; returns the loader.

    Ctrl-C reaches every process of a terminal, and torchrun and Slurm send to all processes too: a worker that ended by
    it would take the step with it that was to be finished.
    """
    if is_listening():
        loader.worker_init_fn = functools.partial(_leave_signals_alone, loader.worker_init_fn)
    return loader


def _leave_signals_alone(then: Callable[[int], None] | None, worker: int) -> None:
    for number in SIGNALS:
        signal.signal(number, _Deaf() if number == signal.SIGTERM else signal.SIG_IGN)
    if then is not None:
        then(worker)


class _Deaf:
    """Ends a worker by its second SIGTERM: the first may be everybody's, the next is its loader's, which is done."""

    def __init__(self) -> None:
        self.heard = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.heard += 1
        if self.heard > 1:
            os._exit(0)


def _is_launched() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("WORLD_SIZE", "1")) > 1
