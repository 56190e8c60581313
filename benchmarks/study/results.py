"""The runs of a study in a file, a line each, which several processes add to."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import StudyError
from .plan import Plan

Record = dict[str, Any]
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
        """The finished runs.

        Raises:
            StudyError: They are of a study of this name with other content, or a line is no record.
        """
        if not self.path.is_file():
            return []
        with self._locked():
            text = self.path.read_text(encoding="utf-8")
            if text and not text.endswith("\n"):
                text = self._repair(text)
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
        if any((run["arm"], run["seed"]) == (record["arm"], record["seed"]) for run in self.read()):
            _logger.warning("%s of seed %s was there already", record["arm"], record["seed"])
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked(), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
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

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.work.mkdir(parents=True, exist_ok=True)
        with (self.work / "results.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _repair(self, text: str) -> str:
        """Cut off a last line that was not written to its end."""
        torn = text.rpartition("\n")[2]
        with self.path.open("r+b") as file:  # in place: what is whole is never away
            try:
                json.loads(torn)
            except json.JSONDecodeError:
                _logger.warning("%s: its last line was torn (%d letters) and is cut off", self.path, len(torn))
                kept = text.removesuffix(torn)
                file.truncate(len(kept.encode()))
                return kept
            file.seek(0, os.SEEK_END)
            file.write(b"\n")  # whole but for the end of the line
            return text + "\n"

    def _parse(self, number: int, line: str) -> Record:
        try:
            record: Record = json.loads(line)
            if not {"plan", "content", "arm", "seed", "metrics"} <= record.keys():
                raise ValueError("keys are missing")
        except (ValueError, AttributeError) as error:
            raise StudyError(f"{self.path}, line {number}: no record of a run ({error})") from error
        return record
