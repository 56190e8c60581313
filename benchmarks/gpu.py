"""Everything that is measured on a GPU, in one command of at most eight minutes, each figure as soon as it is known.

    python benchmarks/gpu.py                                    # results/NAME-DEVICE.json beside this file
    python benchmarks/gpu.py --minutes 4 --only pruning hourglass_speed
    python benchmarks/gpu.py --show                             # the tables of the records that are there
    python benchmarks/gpu.py --device cpu --quick --results DIR # the same code with tiny models, to see that it works

- overhead         wrapped over a hand-written loop: training, eval, bytes (`overhead.py`)
- pruning          fewer tokens over all of them (`pruning.py`)
- hourglass_speed  fewer frames over all of them (`hourglass_speed.py`)
- pose_speed       pose models: inference, preparation, training, decoding (`pose_speed.py`)
- study_speed      whole training steps of a small classifier, images a second

In bfloat16 autocast, by CUDA events, in interleaved rounds. Each case is timed as it is, captured in a CUDA graph,
compiled, and compiled and captured; "busy" is the share of a call's time in which the GPU computed, and below 0.85 it
was launches that took the time. Run again, it goes on with what is not measured yet: a record counts for one device,
one set of versions and one state of the code. A job that fails or takes too long is noted and tried again at the end.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from common import RESULTS, conditions, progress  # beside this file
from on_gpu.jobs import BENCHMARKS, Job, all_jobs, quick_jobs
from on_gpu.records import Records, code_digest
from on_gpu.supervise import run_jobs, supervise
from on_gpu.tables import read_records, tables

REPEATS = {True: 2, False: 7}  # rounds, quick or not


def build_parser() -> argparse.ArgumentParser:
    """The options; those of the process that measures are not shown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ... or, with --quick, cpu")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), help="these alone")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all of it (default: 8)")
    parser.add_argument("--job-seconds", type=float, default=120.0, help="for one case (default: 120)")
    parser.add_argument("--repeats", type=int, help="rounds of each comparison (default: 7)")
    parser.add_argument("--results", type=Path, help="folder of the records (default: results beside this file)")
    parser.add_argument("--quick", action="store_true", help="tiny models, whose figures mean nothing")
    parser.add_argument("--show", action="store_true", help="print the tables of the records and measure nothing")
    parser.add_argument("--status", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--jobs", nargs="*", default=[], help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure or show."""
    parser = build_parser()
    options = parser.parse_args(argv)
    if options.show:
        sys.stdout.write(tables(read_records(options.results or RESULTS)))
        return 0
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: torch sees no GPU here; --device cpu --quick tries the code without")
    if device.type != "cuda" and not options.quick:
        parser.error(f"--device {options.device}: only a CUDA device is measured; the CPU takes --quick")
    if options.quick and options.results is None:
        parser.error("--quick: figures of tiny models do not belong to the records: give a folder by --results")
    folder, repeats = options.results or RESULTS, options.repeats or REPEATS[options.quick]
    jobs = [job for job in (quick_jobs() if options.quick else all_jobs()) if job.benchmark in options.only]
    records = Records(folder, {**conditions(device, repeats), "code": code_digest()})
    if options.status is not None:
        return _measure(jobs, records, device, repeats, options)
    return _see_to(jobs, records, argv if argv is not None else sys.argv[1:], options)


def _measure(
    jobs: Sequence[Job], records: Records, device: torch.device, repeats: int, options: argparse.Namespace
) -> int:
    if device.type == "cpu":
        torch.set_num_threads(1)
    by_name = {job.name: job for job in jobs}
    return run_jobs([by_name[name] for name in options.jobs], records, device, repeats, options.status)


def _see_to(jobs: Sequence[Job], records: Records, argv: Sequence[str], options: argparse.Namespace) -> int:
    def command(status: Path, names: Sequence[str]) -> list[str]:
        return [sys.executable, __file__, *argv, "--status", str(status), "--jobs", *names]

    left = supervise(jobs, records, command, 60 * options.minutes, options.job_seconds)
    found = [records.read(benchmark) | {"benchmark": benchmark} for benchmark in options.only]
    sys.stdout.write(tables([record for record in found if record["rows"]]))
    failed = {name: text for record in found for name, text in record["failed"].items()}
    for name, text in failed.items():
        progress(f"not measured: {name}: {text}")
    for name in left:
        progress(f"no time left for: {name}; run the command again")
    return 1 if failed or left else 0


if __name__ == "__main__":
    sys.exit(main())
