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

from .adaptive import measure, read_curves, table, write_curves
from .costs import ArmCost, arm_costs
from .errors import StudyError
from .load import PLANS, load_plan
from .plan import Plan
from .report import excerpt, fill, write_report
from .results import Results
from .tasks import open_task
from .tasks.task import Task
from .train import Run, check_metrics

_logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        plans = [load_plan(name) for name in options.studies or sorted(each.stem for each in PLANS.glob("*.yaml"))]
        _check_names(plans)
    except StudyError as error:
        return _refused(error)
    options.deadline = time.monotonic() + 60 * getattr(options, "minutes", math.inf)
    code = 0
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
        _common(command, do)
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


def _common(command: argparse.ArgumentParser, do: object) -> None:
    command.add_argument("studies", nargs="*", help="names or files (default: all that are registered)")
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
    if unknown := set(options.arms or ()) - set(plan.arms):
        raise StudyError(f"--arms {unknown.pop()}: {plan.name} has {', '.join(plan.arms)}")
    if others := set(options.seeds or ()) - set(plan.seeds):
        raise StudyError(f"--seeds {others.pop()}: {plan.name} has {plan.seeds}; more are registered in its file")
    if not options.minutes > 0 or options.threads < 1:
        raise StudyError(f"--minutes {options.minutes} --threads {options.threads}: numbers above 0 are expected")
    device = _device(options.device)
    torch.set_num_threads(options.threads)
    results = _results(plan, options)
    results.read()  # refuses results of another content before anything is trained
    task = open_task(plan.task, options.data, device)
    costs = arm_costs(plan, task)
    check_metrics(plan, task)
    for seed in options.seeds or plan.seeds:
        for arm in options.arms or plan.arms:
            if time.monotonic() < options.deadline:
                _one(plan, task, costs, results, arm, seed, device, options.deadline)


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise StudyError(f"--device {name}: cpu or cuda is expected") from error
    if device.type not in ("cpu", "cuda"):
        raise StudyError(f"--device {name}: cpu or cuda is expected")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise StudyError(f"--device {name}: torch sees no GPU here")
    return device


def _one(
    plan: Plan,
    task: Task,
    costs: dict[str, ArmCost],
    results: Results,
    arm: str,
    seed: int,
    device: torch.device,
    deadline: float,
) -> None:
    with results.claim(arm, seed) as mine:
        if not mine or any((run["arm"], run["seed"]) == (arm, seed) for run in results.read()):
            return
        start = plan.arms[arm].start_from
        if start is not None and not (results.work / f"{start}-{seed}.safetensors").is_file():
            if any((run["arm"], run["seed"]) == (start, seed) for run in results.read()):
                raise StudyError(
                    f"{plan.name}: {start}, seed {seed} was run elsewhere, and its weights, from which {arm} starts, "
                    f"are not in {results.work}: give the --work it was run with, or another --results to run all anew"
                )
            _logger.info("%s: %s, seed %d waits for the weights of %s", plan.name, arm, seed, start)
            return
        run = Run(plan, task, arm, seed, costs[arm], results.work, device)
        record = run.go(deadline)
        if record is None:
            _logger.info("%s: %s, seed %d was stopped, and goes on next time", plan.name, arm, seed)
            return
        results.add(record)
        run.forget()
        first = record["metrics"].get(plan.metrics[0], "diverged")
        _logger.info("%s: %s, seed %d, %.0f s: %s", plan.name, arm, seed, record["seconds"], first)


def _status(plan: Plan, options: argparse.Namespace) -> None:
    results = _results(plan, options)
    runs = results.read()
    done = {(run["arm"], run["seed"]) for run in runs}
    wanted = [(arm, seed) for seed in plan.seeds for arm in plan.arms]
    missing = [f"{arm} {seed}" for arm, seed in wanted if (arm, seed) not in done]
    seconds = sum(run["seconds"] for run in runs)
    line = f"{plan.name}: {len(wanted) - len(missing)} of {len(wanted)} runs, {seconds / 60:.0f} minutes"
    bad = [f"{run['arm']} {run['seed']}" for run in runs if run["diverged"]]
    sys.stdout.write(line + (f"; diverged: {', '.join(bad)}" if bad else "") + "\n")
    if missing:
        sys.stdout.write(f"  missing: {', '.join(missing)}\n")


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
    task = open_task(plan.task, options.data, torch.device("cpu"))
    files = {seed: results.work / f"{options.arm}-{seed}.safetensors" for seed in seeds}
    curves = [{"seed": seed, **measure(plan, task, options.arm, files[seed], options.exits)} for seed in files]
    sys.stdout.write(f"{table(plan, curves)}\n")
    write_curves(options.results, plan, curves)


def _report(plan: Plan, options: argparse.Namespace) -> None:
    runs = _results(plan, options).read()
    if not runs and not options.studies:
        return  # all were asked for, and this one has not begun
    sys.stdout.write(f"{write_report(plan, runs, options.results)}\n")
    if options.into is not None:
        text = excerpt(plan, runs, read_curves(options.results, plan))
        page = fill(options.into.read_text(encoding="utf-8"), {plan.name: text})
        atomic_write(options.into, lambda file: file.write_text(page, encoding="utf-8"))
