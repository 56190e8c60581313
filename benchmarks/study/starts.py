"""Runs that start from the weights of another: which of them cannot be, for that one diverged and left none."""

from __future__ import annotations

from collections.abc import Sequence

from .plan import Plan
from .results import Record


def left_out(plan: Plan, runs: Sequence[Record]) -> dict[tuple[str, int], str]:
    """Runs that are not there and cannot be.

    Returns:
        An arm and a seed -> the arm that diverged at that seed, from which it starts, or an arm that it starts from.
    """
    diverged = {(run["arm"], run["seed"]): run["diverged"] for run in runs}
    found = {}
    for seed in plan.seeds:
        for arm in plan.arms:
            start: str | None = arm
            while start is not None and (start, seed) not in diverged:
                start = plan.arms[start].start_from
            if start not in (None, arm) and diverged[start, seed]:
                found[arm, seed] = start
    return found
