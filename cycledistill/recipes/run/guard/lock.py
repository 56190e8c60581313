"""One run a folder: a lock that says which process has it, and by a heartbeat that it still runs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cycledistill.recipes.errors import CheckpointError, RecipeError
from cycledistill.recipes.reading.texts import parse_json
from cycledistill.recipes.run.guard.process import ProcessId

_logger = logging.getLogger(__name__)

NAME = "run.lock"
BEAT = 10.0
"""Seconds from one heartbeat, a new time of the file, to the next."""
SILENCE = 6 * BEAT
"""Seconds without one, watched from here, after which a run on another machine has ended."""
OLD = 600.0
"""Age in seconds that a heartbeat has only where the run ended, so that nothing need be watched. Clocks differ less."""


class RunLock:
    """The lock that this process has on a run's folder.

    Example:
        >>> with run_lock(Path("runs/a")) as lock:
        ...     lock.check()
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.token = secrets.token_hex(8)
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None

    def take(self) -> None:
        """Take the folder, which must be there; a lock that was left behind is taken over, and the log tells.

        Raises:
            RecipeError: Another run has it, or seems to.
            OSError: No file can be made there.
        """
        while not self._create():
            found = _read(self.path)
            if found is None:
                continue  # it was given back just now
            who, token = found
            why = self._why_left(who)
            if why is None:
                raise RecipeError(
                    f"run.output={str(self.path.parent)!r} is in use by the run of {_name(who)}: wait for its end, or "
                    f"pass another --output. (If that run is certain to have ended, delete {self.path}.)"
                )
            if self._remove(token):
                _logger.warning("%s was left by %s, %s: taken over", self.path.parent, _name(who), why)
        self._clear()
        self._heart = threading.Thread(target=self._beat, name="run lock", daemon=True)
        self._heart.start()

    def check(self) -> None:
        """Find the lock still there, before something is written to the folder.

        Raises:
            CheckpointError: Another run took the folder over, as it may where this process was suspended for long.
        """
        found = _read(self.path)
        if found is None or found[1] != self.token:
            by = "is gone" if found is None else f"is {_name(found[0])}'s"
            raise CheckpointError(
                f"the lock of this run, {self.path}, {by}: the folder is no longer this run's, which ends without "
                "writing to it. Go on with --resume once no other run is there."
            )

    def give_back(self) -> None:
        """Let the folder go; a lock that is another's by now stays."""
        self._ended.set()
        if self._heart is not None:
            self._heart.join(BEAT)
        with contextlib.suppress(OSError):  # the disk may be away; the lock is stale then, and known as such
            self._remove(self.token)

    def _create(self) -> bool:
        text = json.dumps({**dataclasses.asdict(ProcessId.own()), "token": self.token})
        beside = self.path.with_name(f".{NAME}-{self.token}")
        try:
            beside.write_text(text, encoding="utf-8")
            try:
                os.link(beside, self.path)  # the lock appears with its content, or is somebody else's
            except FileExistsError:
                return False
            except OSError:  # a file system without links
                try:
                    with self.path.open("x", encoding="utf-8") as file:
                        file.write(text)
                except FileExistsError:
                    return False
        finally:
            beside.unlink(missing_ok=True)
        return True

    def _clear(self) -> None:
        """Take away what processes that were killed while they took or gave back a lock left beside it.

        One that takes the lock just now does without its file: it finds the folder taken, as it is.
        """
        for each in self.path.parent.glob(f".{NAME}-*"):
            found = _read(each)
            if found is not None and found[1] != self.token:  # else another process is about to put ours back
                with contextlib.suppress(OSError):
                    each.unlink()

    def _why_left(self, who: ProcessId | None) -> str | None:
        """Why the lock's owner is taken to have ended; None: it has not."""
        gone = None if who is None else who.is_gone()
        if gone is not None:
            return "which has ended" if gone else None
        before = _age(self.path)
        if before is None:
            return "which gave it back"
        if before >= OLD:
            return "silent for long"
        _logger.warning("%s is in use by %s: watching its heartbeat for %g s", self.path.parent, _name(who), SILENCE)
        seen, end = _beat_of(self.path), time.monotonic() + SILENCE
        while time.monotonic() < end:
            time.sleep(min(BEAT, SILENCE) / 4)
            if _beat_of(self.path) != seen:
                return None
        return f"silent for {SILENCE:g} s"

    def _remove(self, token: str) -> bool:
        """Take the lock with this token away; one with another is left, or put back."""
        aside = self.path.with_name(f".{NAME}-{self.token}-old")
        found = _read(self.path)
        if found is None or found[1] != token:
            return False
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:  # another process was faster
            return False
        found = _read(aside)
        if found is not None and found[1] != token:
            with contextlib.suppress(OSError):
                os.link(aside, self.path)
            aside.unlink(missing_ok=True)
            return False
        aside.unlink(missing_ok=True)
        return True

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with contextlib.suppress(OSError):  # the disk may be away for a while
                found = _read(self.path)
                if found is None or found[1] != self.token:
                    return
                os.utime(self.path)


@contextmanager
def run_lock(folder: Path, *, writes: bool = True) -> Iterator[RunLock | None]:
    """Have a run's folder for the length of a block, on the process that writes to it.

    Folders that are made for it are taken away again where nothing else came into them.

    Raises:
        RecipeError: Another run has the folder, or it cannot be written to.
    """
    if not writes:
        yield None
        return
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = RunLock(folder)
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.take()
        except OSError as error:
            raise RecipeError(f"run.output={str(folder)!r} cannot be written to: {error}") from error
        try:
            yield lock
        finally:
            lock.give_back()
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()


def _read(path: Path) -> tuple[ProcessId | None, str] | None:
    """Who has a lock, as far as it says, and the lock's token; None where there is none."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        found = parse_json(text, path, CheckpointError)
        token = str(found.pop("token"))
        if type(found["pid"]) is not int or not 0 < found["pid"] < 2**31:  # 0 and below are groups of processes
            return None, ""
        return ProcessId(**found), token
    except (CheckpointError, TypeError, KeyError, AttributeError):  # cut off, or another program's
        return None, ""


def _beat_of(path: Path) -> int | None:
    """When the lock's owner last gave a sign; None where there is no lock.

    Raises:
        OSError: Nobody can say: a disk that does not answer, or a lock that may not be read, is no sign of an end.
    """
    try:
        with path.open("rb") as file:  # opened, so that a network's file system asks anew
            return os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None


def _age(path: Path) -> float | None:
    beat = _beat_of(path)
    return None if beat is None else time.time() - beat / 1e9


def _name(who: ProcessId | None) -> str:
    return "an unknown process" if who is None else f"process {who.pid} on {who.host}"
