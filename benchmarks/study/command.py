"""``python benchmarks/study``: run registered studies, say how far they are, report them.

    python benchmarks/study run mazes                                # until all is done; repeat, or start several
    python benchmarks/study run parameters-96 --data DATA --minutes 9
    python benchmarks/study status
    python benchmarks/study adaptive mazes --arm exits --exits 1 2 3 4
    python benchmarks/study report mazes --into docs/when.md

Studies are YAML files in benchmarks/study/plans, registered before they run. A run is an arm from a seed; finished ones
are lines of benchmarks/results/study/NAME.jsonl, and what was stopped goes on where it was. --data is the folder that
holds sets of pictures (cifar10/train.parquet and so on).
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from common import RESULTS

from cycledistill.files import atomic_write
from cycledistill.recipes.reading.guard import FILE, reading

from .adaptive import measure, read_curves, read_file, table, write_curves
from .errors import StudyError
from .load import PLANS, load_plan
from .plan import Plan
from .report import excerpt, fill, write_report
from .results import Results
from .running import run_study
from .starts import left_out
from .tasks import task_of


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    plans, code = list[Plan](), 0
    for name in options.studies or sorted(each.stem for each in PLANS.glob("*.yaml")):
        try:
            plans.append(load_plan(name))
        except (StudyError, OSError) as error:
            code = _refused(error)  # and go on with the next
    try:
        _check_names(plans)
    except StudyError as error:
        return _refused(error)
    options.deadline = time.monotonic() + 60 * getattr(options, "minutes", math.inf)
    for plan in plans:
        try:
            options.do(plan, options)
        except (StudyError, OSError) as error:
            code = _refused(error)  # and go on with the next
    return code


def _refused(error: Exception) -> int:
    sys.stderr.write(f"error: {error}\n")
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for name, do, text in (
        ("run", _run, "train what is missing"),
        ("status", _status, "how far they are"),
        ("adaptive", _adaptive, "let samples of a trained arm stop where they are sure"),
        ("report", _report, "write what they say"),
    ):
        command = commands.add_parser(name, help=text)
        _common(command, do, all_by_default=name != "adaptive")  # its arm is one study's
    run, adaptive = commands.choices["run"], commands.choices["adaptive"]
    for command in (run, adaptive):
        command.add_argument("--data", type=Path, help="folder of the sets of pictures")
    adaptive.add_argument("--arm", required=True, help="whose weights, of all seeds that were run")
    adaptive.add_argument("--exits", type=int, nargs="+", required=True, help="cycles that samples may leave after")
    run.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    run.add_argument("--minutes", type=float, default=math.inf, help="stop after so many, and keep what is unfinished")
    run.add_argument("--seeds", type=int, nargs="+", help="only these")
    run.add_argument("--arms", nargs="+", help="only these")
    commands.choices["report"].add_argument("--into", type=Path, help="a page whose excerpts are written anew")
    run.add_argument("--threads", type=int, default=1, help="of a CPU (default: 1)")
    return parser


def _common(command: argparse.ArgumentParser, do: object, *, all_by_default: bool) -> None:
    if all_by_default:
        command.add_argument("studies", nargs="*", help="names or files (default: all that are registered)")
    else:
        command.add_argument("studies", nargs="+", metavar="STUDY", help="name or file of one, or of several")
    command.add_argument("--results", type=Path, default=RESULTS / "study", help="folder of the finished runs")
    command.add_argument("--work", type=Path, help="folder of what is unfinished (default: .work in --results)")
    command.set_defaults(do=do)


def _check_names(plans: Sequence[Plan]) -> None:
    seen: dict[str, str] = {}
    for plan in plans:
        if seen.setdefault(plan.name, plan.digest) != plan.digest:
            raise StudyError(f"two studies are called {plan.name} and have other content: name one of them anew")


def _results(plan: Plan, options: argparse.Namespace) -> Results:
    return Results(plan, options.results, options.work or options.results / ".work")


def _run(plan: Plan, options: argparse.Namespace) -> None:
    run_study(plan, _results(plan, options), options)


def _status(plan: Plan, options: argparse.Namespace) -> None:
    results = _results(plan, options)
    runs = results.read()
    done = {(run["arm"], run["seed"]) for run in runs}
    wanted = [(arm, seed) for seed in plan.seeds for arm in plan.arms]
    out = left_out(plan, runs)
    missing = [f"{arm} {seed}" for arm, seed in wanted if (arm, seed) not in done | out.keys()]
    seconds = sum(run["seconds"] for run in runs)
    line = f"{plan.name}: {len(done & set(wanted))} of {len(wanted)} runs, {seconds / 60:.0f} minutes"
    bad = [f"{run['arm']} {run['seed']}" for run in runs if run["diverged"]]
    sys.stdout.write(line + (f"; diverged: {', '.join(bad)}" if bad else "") + "\n")
    if missing:
        sys.stdout.write(f"  missing: {', '.join(missing)}\n")
    if out:
        which = ", ".join(f"{arm} {seed} ({start})" for (arm, seed), start in out.items())
        sys.stdout.write(f"  left out, for the arm they start from diverged: {which}\n")
    if unended := _unended(results):
        sys.stdout.write(f"  {unended}\n")


def _unended(results: Results) -> str:
    """That a last line is not counted, in words; nothing where there is none."""
    count = results.unended()
    if not count:
        return ""
    return (
        f"{results.path.name}: its last line ({count} letters) has no end and is not counted; "
        "`run` cuts it off, or ends it where only its end is missing"
    )


def _adaptive(plan: Plan, options: argparse.Namespace) -> None:
    if options.arm not in plan.arms:
        raise StudyError(f"--arm {options.arm}: {plan.name} has {', '.join(plan.arms)}")
    results = _results(plan, options)
    if len(options.exits) < 2 or sorted(set(options.exits)) != options.exits or options.exits[0] < 1:
        raise StudyError(f"--exits {options.exits}: two or more numbers of cycles are expected, from 1, ascending")
    seeds = [run["seed"] for run in results.read() if run["arm"] == options.arm and not run["diverged"]]
    if not seeds:
        raise StudyError(f"{plan.name} has no finished run of {options.arm}: python benchmarks/study run {plan.name}")
    torch.set_num_threads(1)
    task = task_of(plan, options.data, torch.device("cpu"))
    read_file(options.results, plan)  # refuses one that is broken before anything is measured
    files = {seed: results.work / f"{options.arm}-{seed}.safetensors" for seed in seeds}
    curves = [{"seed": seed, **measure(plan, task, options.arm, files[seed], options.exits)} for seed in files]
    sys.stdout.write(f"{table(plan, curves)}\n")
    write_curves(options.results, plan, curves)


def _report(plan: Plan, options: argparse.Namespace) -> None:
    results = _results(plan, options)
    runs = results.read()
    if unended := _unended(results):
        sys.stdout.write(f"{unended}\n")
    if not runs and not options.studies:
        return  # all were asked for, and this one has not begun
    sys.stdout.write(f"{write_report(plan, runs, options.results)}\n")
    if options.into is not None:
        with reading(options.into, FILE, StudyError):
            page = options.into.read_text(encoding="utf-8")
        if not options.studies and f"<!-- study {plan.name} -->" not in page:
            return  # all were asked for, and the page is of others
        text = excerpt(plan, runs, read_curves(options.results, plan))
        filled = fill(page, {plan.name: text})
        atomic_write(options.into, lambda file: file.write_text(filled, encoding="utf-8"))
