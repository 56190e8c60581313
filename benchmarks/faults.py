"""What becomes of faults: odd arguments and files, and runs that are killed or lose the disk, a worker, a rank?

Each case ends in a documented error, in the right result, or has escaped, which is a bug. Cases are drawn from a seed;
the generators and the oracles are those of ``tests/faults``. One case in a hundred is a run, or more with ``--runs``.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for the generators, which tests share

import torch
from common import RESULTS, Row, columns, hardware, progress, study_parser, versions, write

from tests.faults.kinds import ERROR, ESCAPED, RIGHT, Kind, Tally, tally
from tests.faults.nursery import Nursery
from tests.faults.properties import COSTLY, PROPERTIES
from tests.faults.runs import RUN_KINDS, Runs, run_kinds

SHARE = 0.25
"""Of the cases of other kinds, what costly ones get."""


def shares(cases: int, runs: int) -> dict[str, int]:
    """How many cases each kind gets."""
    weights = {kind.name: SHARE if kind.name in COSTLY else 1.0 for kind in PROPERTIES}
    found = {name: max(1, round((cases - runs) * weight / sum(weights.values()))) for name, weight in weights.items()}
    return found | {name: max(1, runs // len(RUN_KINDS)) for name in RUN_KINDS}


def row(kind: Kind, found: Tally, seconds: float) -> Row:
    """A kind's row of the record."""
    counted = {what: found.outcomes[what] for what in (ERROR, RIGHT, ESCAPED)}
    return {
        "kind": kind.name,
        "tried": sum(found.outcomes.values()),
        **counted,
        "escapes": found.escapes,
        "seconds": round(seconds, 1),
    }


def table(rows: list[Row]) -> str:
    """The rows as text, with their sum."""
    head = ("kind", "tried", ERROR, RIGHT, ESCAPED)
    total = {"kind": "all"} | {name: sum(each[name] for each in rows) for name in head[1:]}
    return columns([head, *(tuple(str(each[name]) for name in head) for each in [*rows, total])])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Libraries of pictures write to the error stream what they think of each."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def main(argv: list[str] | None = None) -> int:
    """Try, print the table, write the record; 1 if a fault escaped."""
    parser = study_parser(__doc__, RESULTS / "faults-cpu.json")
    parser.add_argument("--cases", type=int, default=2000, help="how many in all, about")
    parser.add_argument("--runs", type=int, help="how many of them are runs (default: one in a hundred)")
    parser.add_argument("--seed", type=int, default=0, help="others for each")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    number = shares(options.cases, options.cases // 100 if options.runs is None else options.runs)
    rows: list[Row] = []
    where = {"hardware": hardware("cpu", "one thread"), "versions": versions("hypothesis", "timm", "accelerate")}
    record: Row = {"seed": options.seed, "cases": options.cases, "conditions": where, "rows": rows}
    with tempfile.TemporaryDirectory() as folder, Nursery() as nursery:
        for kind in [*PROPERTIES, *run_kinds(Runs(nursery, Path(folder)))]:
            progress(kind.name, f"{number[kind.name]} cases")
            began = time.monotonic()
            with quiet():
                found = tally(kind, number[kind.name], options.seed)
            rows.append(row(kind, found, time.monotonic() - began))
            write(options.out, record)  # after each: what is stopped leaves what it has
    sys.stdout.write(table(rows) + "\n")
    for each in rows:
        for escape in each["escapes"]:
            sys.stdout.write(f"escaped, {each['kind']}: {escape}\n")
    return int(any(each[ESCAPED] for each in rows))


if __name__ == "__main__":
    sys.exit(main())
