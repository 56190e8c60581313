"""Records of jobs, one file a benchmark, named with the device: kept row by row, and gone on with when run again."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from common import Row, write  # in the folder above

ROOT = Path(__file__).resolve().parents[2]
MEASURED_CODE = ("cycledistill", "integrations", "benchmarks")
SAME = ("device", "versions", "code")
"""Conditions under which rows of an earlier run still count."""


def slug(device: str) -> str:
    """A device's name as a part of a file's.

    Example:
        >>> slug("NVIDIA H100 80GB HBM3")
        'nvidia-h100-80gb-hbm3'
    """
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def code_digest(root: Path = ROOT) -> str:
    """Tells whether the code that was measured is the code that is here, with or without a repository around it."""
    digest = hashlib.sha256()
    for folder in MEASURED_CODE:
        for parent, folders, files in sorted(os.walk(root / folder)):
            folders.sort()
            for name in sorted(name for name in files if name.endswith(".py")):
                path = Path(parent, name)
                digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


class Records:
    """Rows by benchmark. A record of another device, of other versions or other code is begun anew.

    Args:
        folder: Where the files are.
        conditions: Those of this run, with the name of the device and the digest of the code.
    """

    def __init__(self, folder: Path, conditions: Mapping[str, Any]) -> None:
        self.folder, self.conditions = folder, dict(conditions)

    def path(self, benchmark: str) -> Path:
        """The file of a benchmark."""
        return self.folder / f"{benchmark}-{slug(str(self.conditions['device']))}.json"

    def read(self, benchmark: str) -> Row:
        """What is known of a benchmark: rows of finished jobs, and jobs that failed with what they said."""
        path = self.path(benchmark)
        if path.exists():
            record = json.loads(path.read_text(encoding="utf-8"))
            known = record["conditions"]
            if all(known.get(key) == self.conditions.get(key) for key in SAME):
                return record
        return {"conditions": self.conditions, "rows": [], "finished": [], "failed": {}}

    def begin(self, benchmark: str, job: str) -> None:
        """Drop the rows of a job that was cut off."""
        record = self.read(benchmark)
        record["rows"] = [row for row in record["rows"] if row["job"] != job]
        write(self.path(benchmark), record)

    def add(self, benchmark: str, row: Row) -> None:
        """Keep a row."""
        record = self.read(benchmark)
        record["rows"].append(row)
        write(self.path(benchmark), record)

    def finish(self, benchmark: str, job: str, failure: str | None = None) -> None:
        """Note that a job has ended, or why it has not; the rows it gave before are kept in both cases."""
        record = self.read(benchmark)
        record["failed"].pop(job, None)
        if failure is None:
            record["finished"].append(job)
        else:
            record["failed"][job] = failure
        write(self.path(benchmark), record)

    def unfinished(self, jobs: Iterable[tuple[str, str]]) -> list[str]:
        """Names of jobs, given as (benchmark, job), that are not done; those that failed before come last."""
        found: dict[bool, list[str]] = {False: [], True: []}
        for benchmark, job in jobs:
            record = self.read(benchmark)
            if job not in record["finished"]:
                found[job in record["failed"]].append(job)
        return found[False] + found[True]
