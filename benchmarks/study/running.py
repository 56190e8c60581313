"""The runs of a study that are left to do, one after the other, and what is said of each."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence

import torch

from .costs import ArmCost, arm_costs
from .errors import StudyError
from .plan import Plan
from .results import Record, Results
from .starts import left_out
from .tasks import task_of
from .tasks.task import Task
from .train import Run, check_metrics

_logger = logging.getLogger(__name__)


def run_study(plan: Plan, results: Results, options: argparse.Namespace) -> None:
    """Train what is missing of a study, until the deadline.

    Raises:
        StudyError: An option, the results or what the plan says cannot be gone by.
    """
    if unknown := set(options.arms or ()) - set(plan.arms):
        raise StudyError(f"--arms {unknown.pop()}: {plan.name} has {', '.join(plan.arms)}")
    if others := set(options.seeds or ()) - set(plan.seeds):
        raise StudyError(f"--seeds {others.pop()}: {plan.name} has {plan.seeds}; more are registered in its file")
    if not options.minutes > 0 or options.threads < 1:
        raise StudyError(f"--minutes {options.minutes} --threads {options.threads}: numbers above 0 are expected")
    device = _device(options.device)
    torch.set_num_threads(options.threads)
    results.mend()
    runs = results.read()  # refuses results of another content before anything is trained
    wanted = [(arm, seed) for seed in options.seeds or plan.seeds for arm in options.arms or plan.arms]
    due = _due(plan, runs, wanted)
    if not due:
        return
    task = task_of(plan, options.data, device)
    costs = arm_costs(plan, task)
    check_metrics(plan, task)
    for begun, (arm, seed) in enumerate(due):
        if time.monotonic() >= options.deadline:
            _logger.info("%s: --minutes are over, and %d runs have not begun", plan.name, len(due) - begun)
            return
        _one(plan, task, costs, results, arm, seed, device, options.deadline)


def _due(plan: Plan, runs: Sequence[Record], wanted: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Which of the runs are left to do; says which cannot be done, and where none is left."""
    out = left_out(plan, runs)
    for arm, seed in wanted:
        if (arm, seed) in out:
            _say_left_out(plan, arm, seed, out[arm, seed])
    done = {(run["arm"], run["seed"]) for run in runs} | out.keys()
    due = [each for each in wanted if each not in done]
    if not due:
        which = "" if len(wanted) == len(plan.arms) * len(plan.seeds) else " of these arms and seeds"
        _logger.info("%s: nothing is left to run%s", plan.name, which)
    return due


def _say_left_out(plan: Plan, arm: str, seed: int, start: str) -> None:
    _logger.info("%s: %s, seed %d is left out: %s, from which it starts, diverged", plan.name, arm, seed, start)


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
        if not mine:
            _logger.info("%s: %s, seed %d is being run by another process", plan.name, arm, seed)
            return
        runs = results.read()
        done = {(run["arm"], run["seed"]) for run in runs}
        if (arm, seed) in done:
            return
        if diverged := left_out(plan, runs).get((arm, seed)):
            _say_left_out(plan, arm, seed, diverged)
            return
        start = plan.arms[arm].start_from
        if start is not None and not (results.work / f"{start}-{seed}.safetensors").is_file():
            if (start, seed) in done:
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
