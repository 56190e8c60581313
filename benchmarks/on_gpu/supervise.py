"""Jobs in a process of their own, which is ended and started again where one takes too long or breaks it.

Compiling can take minutes, and an error on a GPU can leave its process useless: neither may cost the jobs that follow.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from common import progress  # in the folder above

from .jobs import Job
from .records import Records

POLL = 0.1  # seconds
BROKEN = 3
"""How the process ends after a job that failed."""


def run_jobs(jobs: Sequence[Job], records: Records, device: torch.device, repeats: int, status: Path) -> int:
    """Measure jobs in this process until one fails; ``status`` holds the name of the one that is measured now."""
    for job in jobs:
        status.write_text(job.name, encoding="utf-8")
        records.begin(job.benchmark, job.name)
        try:
            for row in job.run(device, repeats):
                records.add(job.benchmark, row)
        except Exception as error:  # of whatever kind: it is kept, and the next jobs get a fresh process
            records.finish(job.benchmark, job.name, f"{type(error).__name__}: {error}"[:1000])
            return BROKEN
        records.finish(job.benchmark, job.name)
    status.write_text("", encoding="utf-8")
    return 0


def supervise(
    jobs: Sequence[Job],
    records: Records,
    command: Callable[[Path, Sequence[str]], Sequence[str]],
    seconds: float,
    job_seconds: float,
) -> list[str]:
    """See that every job is measured, failed or out of time.

    Args:
        jobs: In the order they are wanted.
        records: Where a process of ``command`` puts its rows.
        command: Given the file of the status and the jobs to measure, what starts the process that does.
        seconds: For all of them.
        job_seconds: For each; the first of a process has the start of it in its own.

    Returns:
        Names of the jobs that time did not suffice for.
    """
    by_name = {job.name: job for job in jobs}
    open_jobs = records.unfinished((job.benchmark, job.name) for job in jobs)
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        status = Path(folder) / "status"
        while open_jobs and time.monotonic() < end:
            status.write_text("", encoding="utf-8")
            failure = _watch(command(status, open_jobs), status, end, job_seconds)
            still = set(records.unfinished((job.benchmark, job.name) for job in jobs))
            open_jobs = [name for name in open_jobs if name in still]
            if not failure or not open_jobs or time.monotonic() >= end:
                break
            now = status.read_text(encoding="utf-8")
            if now not in open_jobs:
                raise RuntimeError(f"the process that measures did not come to its next job: {failure}")
            benchmark = by_name[now].benchmark
            if failure != _ended(BROKEN):  # else the process itself has noted what went wrong
                records.finish(benchmark, now, failure)
            progress(f"{now}: {records.read(benchmark)['failed'][now]}")
            open_jobs.remove(now)  # tried once a run
    return open_jobs


def _ended(code: int) -> str:
    return f"its process ended with {code}"


def _watch(command: Sequence[str], status: Path, end: float, job_seconds: float) -> str:
    """Run a process until it ends, a job takes too long, or all time is over; what went wrong, or nothing."""
    process = subprocess.Popen(command, start_new_session=True)
    now, since = "", time.monotonic()
    try:
        while process.poll() is None:
            time.sleep(POLL)
            said = status.read_text(encoding="utf-8")
            if said != now:
                now, since = said, time.monotonic() if now else since
                progress(now)
            if time.monotonic() > end:
                return "the time for all was over"
            if time.monotonic() - since > job_seconds:
                return f"it took longer than {job_seconds:.0f} s"
        return _ended(process.returncode) if process.returncode else ""
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process with those that it started, such as a compiler's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
