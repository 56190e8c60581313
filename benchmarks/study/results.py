"""The runs of a study in a file, a line each, which several processes add to."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from .errors import StudyError
from .plan import Plan

Record = dict[str, Any]
_KEYS = {
    "plan", "content", "arm", "seed", "steps", "parameters", "exit_macs", "training_macs", "seconds", "diverged",
    "deployed_equal", "metrics", "device",
}  # fmt: skip
_logger = logging.getLogger(__name__)


class Results:
    """``NAME.jsonl`` in a folder, and what is in work beside it.

    Args:
        plan: The study.
        folder: Of the results.
        work: Of unfinished runs and trained weights.
    """

    def __init__(self, plan: Plan, folder: Path, work: Path) -> None:
        self.plan, self.path = plan, folder / f"{plan.name}.jsonl"
        self.work = work / plan.name

    def read(self) -> list[Record]:
        """The finished runs; a last line without its end is one that is being written, or was torn, and is left.

        Raises:
            StudyError: They are of a study of this name with other content, or a line is no record.
        """
        if not self.path.is_file():
            return []
        text = self.path.read_text(encoding="utf-8")
        return self._runs(text[: text.rfind("\n") + 1])

    def _runs(self, text: str) -> list[Record]:
        runs = [self._parse(number, line) for number, line in enumerate(text.splitlines(), 1)]
        for run in runs:
            if run["arm"] not in self.plan.arms or run["content"] != self.plan.content_of(run["arm"]):
                raise StudyError(
                    f"{self.path} holds runs of a study that is also called {self.plan.name} and has other content "
                    f"(arm {run['arm']}): give the changed study a name of its own"
                )
        return runs

    def add(self, record: Record) -> None:
        """Add a finished run; a second one of the same arm and seed is left out."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:  # which is the lock as well: wherever others keep what is unfinished
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            runs = self._runs(self._repaired(file))
            if any((run["arm"], run["seed"]) == (record["arm"], record["seed"]) for run in runs):
                _logger.warning("%s of seed %s was there already", record["arm"], record["seed"])
                return
            file.write((json.dumps(record) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def claim(self, arm: str, seed: int) -> Iterator[bool]:
        """Whether this process may do a run; no other may as long as the context lasts, or the process lives."""
        self.work.mkdir(parents=True, exist_ok=True)
        with (self.work / f"{arm}-{seed}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True  # the lock ends with the file, also where the process is killed

    def _repaired(self, file: BinaryIO) -> str:
        """The file's text, after a last line that was not written to its end was cut off, or ended."""
        text = file.read().decode()
        torn = text.rpartition("\n")[2]
        if not torn:
            return text
        try:
            json.loads(torn)
        except json.JSONDecodeError:
            _logger.warning("%s: its last line was torn (%d letters) and is cut off", self.path, len(torn))
            text = text.removesuffix(torn)
            file.truncate(len(text.encode()))
            return text
        file.write(b"\n")  # whole but for the end of the line
        return text + "\n"

    def _parse(self, number: int, line: str) -> Record:
        try:
            record: Record = json.loads(line)
            if missing := _KEYS - record.keys():
                raise ValueError(f"without {', '.join(sorted(missing))}")
            if not record["diverged"] and (unread := self._unread(record)):
                raise ValueError(f"nothing read of {unread}")
        except (ValueError, AttributeError, TypeError) as error:
            raise StudyError(f"{self.path}, line {number}: no record of a run ({error})") from error
        return record

    def _unread(self, record: Record) -> str:
        """What a run did not measure that the plan asks for."""
        wanted = [(metric, str(exit)) for metric in self.plan.metrics for exit in self.plan.exits]
        missing = [f"{metric} at {exit}" for metric, exit in wanted if exit not in record["metrics"].get(metric, {})]
        return ", ".join(missing)
