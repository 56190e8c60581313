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

from cycledistill.recipes.reading.guard import JSON, reading
from cycledistill.recipes.reading.plain import is_finite

from .errors import StudyError
from .expected import FLAG, TEXT, Expected, number, unfit, whole
from .plan import Plan

Record = dict[str, Any]
_KEYS = {
    "plan": TEXT,
    "content": TEXT,
    "arm": TEXT,
    "seed": whole(),
    "steps": whole(0),
    "parameters": whole(0),
    "exit_macs": Expected("a list of numbers above 0", lambda value, _: _are_costs(value)),
    "training_macs": number("above 0", lambda macs: macs > 0),
    "seconds": number("from 0", lambda seconds: seconds >= 0),
    "diverged": FLAG,
    "deployed_equal": Expected("true, false or null", lambda value, _: value is None or isinstance(value, bool)),
    "metrics": Expected("a mapping", lambda value, _: isinstance(value, dict)),
    "device": TEXT,
}
"""What a line says of a run, and what reports are made from."""
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
        self._warned: set[int] = set()  # lines, each once, for the file is read for every run

    def read(self) -> list[Record]:
        """The finished runs, each once; a last line without its end is one that is being written, or torn, and is left.

        Raises:
            StudyError: They are of a study of this name with other content, a line is no record, or two lines differ
                and are of the same run.
        """
        if not self.path.is_file():
            return []
        written = self.path.read_bytes()
        return self._runs(written[: written.rfind(b"\n") + 1])

    def unended(self) -> int:
        """Bytes of a last line without its end, which is not counted: while nobody writes, a line that was torn."""
        if not self.path.is_file():
            return 0
        with self.path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # waits for who is writing
            written = file.read()
        return len(written) - written.rfind(b"\n") - 1

    def mend(self) -> None:
        """Cut off a last line that was torn, and say so."""
        if self.unended():
            with self.path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                self._repaired(file)

    def _runs(self, written: bytes) -> list[Record]:
        kept: dict[tuple[str, int], tuple[int, Record]] = {}
        for line, text in enumerate(written.split(b"\n")[:-1], 1):
            run = self._parse(line, text)
            arm, seed = run["arm"], run["seed"]
            if arm not in self.plan.arms or run["content"] != self.plan.content_of(arm):
                raise StudyError(
                    f"{self.path} holds runs of a study that is also called {self.plan.name} and has other content "
                    f"(arm {arm}): give the changed study a name of its own"
                )
            if wrong := self._wrong_readings(run):
                raise self._no_record(line, wrong)
            first, same = kept.setdefault((arm, seed), (line, run))
            if same != run:
                raise StudyError(
                    f"{self.path}, lines {first} and {line} are both of {arm}, seed {seed}, and differ: one line a run "
                    "is expected, so remove one of them"
                )
            if first != line and line not in self._warned:
                self._warned.add(line)
                _logger.warning(
                    "%s, line %d is line %d again (%s, seed %d): it counts once", self.path, line, first, arm, seed
                )
        return [run for _, run in kept.values()]

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

    def _repaired(self, file: BinaryIO) -> bytes:
        """What the file holds, after a last line that was not written to its end was cut off, or ended."""
        written = file.read()
        torn = written.rpartition(b"\n")[2]
        if not torn:
            return written
        try:
            json.loads(torn.decode())
        except (ValueError, RecursionError):
            _logger.warning("%s: its last line was torn (%d letters) and is cut off", self.path, len(torn))
            written = written.removesuffix(torn)
            file.truncate(len(written))
            return written
        file.write(b"\n")  # whole but for the end of the line
        return written + b"\n"

    def _parse(self, line: int, text: bytes) -> Record:
        with reading(f"{self.path}, line {line}: no record of a run", JSON, StudyError):
            record: Record = json.loads(text.decode())
        if not isinstance(record, dict):
            raise self._no_record(line, f"a mapping is expected, not {record!r:.80}")
        if missing := _KEYS.keys() - record.keys():
            raise self._no_record(line, f"without {', '.join(sorted(missing))}")
        if wrong := unfit(record, _KEYS):
            raise self._no_record(line, wrong)
        return record

    def _no_record(self, line: int, wrong: str) -> StudyError:
        return StudyError(f"{self.path}, line {line}: no record of a run ({wrong})")

    def _wrong_readings(self, record: Record) -> str | None:
        """What a run did not measure that the plan asks for, or is no number."""
        if len(record["exit_macs"]) != len(self.plan.exits):
            return f"exit_macs: {len(record['exit_macs'])} numbers, and the exits are {self.plan.exits}"
        unread = []
        for metric in self.plan.metrics if not record["diverged"] else ():
            found = record["metrics"].get(metric, {})
            if not isinstance(found, dict):
                return f"metrics.{metric}: got {found!r:.80}, a number for each exit is expected"
            unread += [f"{metric} at {exit}" for exit in self.plan.exits if str(exit) not in found]
            for exit, percent in found.items():
                if not is_finite(percent):
                    return f"metrics.{metric} at {exit}: got {percent!r:.80}, a finite number, in percent, is expected"
        return f"nothing read of {', '.join(unread)}" if unread else None


def _are_costs(value: Any) -> bool:
    return isinstance(value, list) and all(is_finite(each) and each > 0 for each in value)
