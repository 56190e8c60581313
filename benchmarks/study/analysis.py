"""What the runs of a study say: means by arm, paired differences with intervals, and verdicts from these numbers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from .plan import Comparison, Plan, split_side
from .results import Record
from .starts import left_out

LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """A registered comparison, over the plan's seeds that both sides have.

    Attributes:
        comparison: Which.
        metric: Of what, in percent.
        values: Left less right, a point a seed.
        missing: Seeds of the plan that one of the sides has not run.
        diverged: Seeds at which one of the sides diverged, or starts from a run that did.
        low, high: The 95 % interval of the mean (t distribution), not corrected; infinite below two seeds.
        p: That of the paired t test, two-sided; 1 below two seeds, and where all seeds differ by the same.
        corrected: p after Holm's correction: of a registered comparison for the number of these, of one that was added
            for the number of all, so that none is easier for having been thought of later.
    """

    comparison: Comparison
    metric: str
    values: tuple[float, ...]
    missing: tuple[int, ...]
    diverged: tuple[int, ...]
    low: float
    high: float
    p: float
    corrected: float = 1.0

    @property
    def mean(self) -> float:
        """Points; nan where there is no seed."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def wins(self) -> int:
        """Seeds in which the left side is higher."""
        return sum(value > 0 for value in self.values)

    @property
    def verdict(self) -> str:
        """``yes``, ``no`` where the right side is higher, or ``not told apart``; after the correction.

        ``interim`` until all seeds of the plan are there, for who looks often stops where it suits; ``not decided``
        with fewer than three, and where a side diverged: the seeds that are left are a choice by result.
        """
        if self.diverged:
            return "not decided"
        if self.missing:
            return "interim"
        if len(self.values) < 3:
            return "not decided"
        if not self.corrected < LEVEL:
            return "not told apart"
        return "yes" if self.mean > 0 else "no"


def readings(runs: Sequence[Record], arm: str, exit: int, metric: str) -> dict[int, float]:
    """An arm at an exit: seed -> percent; runs that diverged have none."""
    return {run["seed"]: run["metrics"][metric][str(exit)] for run in runs if run["arm"] == arm and not run["diverged"]}


def differences(plan: Plan, runs: Sequence[Record]) -> list[Difference]:
    """All comparisons of a plan, in its order, corrected for their number; those without two seeds count as well."""
    found = []
    out = left_out(plan, runs)
    for comparison in plan.comparisons:
        metric = comparison.metric or plan.metrics[0]
        sides = [split_side(side) for side in (comparison.left, comparison.right)]
        left, right = (readings(runs, *side, metric) for side in sides)
        own = [run for run in runs if run["arm"] in {arm for arm, _ in sides}]
        diverged = {run["seed"] for run in own if run["diverged"]} & set(plan.seeds)
        diverged |= {seed for arm, seed in out if arm in {side for side, _ in sides}}
        both = [seed for seed in plan.seeds if seed in left.keys() & right.keys()]
        missing = tuple(seed for seed in plan.seeds if seed not in both and seed not in diverged)
        values = tuple(left[seed] - right[seed] for seed in both)
        numbers = interval(values) if len(values) > 1 else (-math.inf, math.inf, 1.0)
        found.append(Difference(comparison, metric, values, missing, tuple(sorted(diverged)), *numbers))
    registered = [each.p for each in found if not each.comparison.added]
    asked, all_ = iter(holm(registered)), holm([each.p for each in found])
    return [
        replace(each, corrected=value if each.comparison.added else next(asked))
        for each, value in zip(found, all_, strict=True)
    ]


def success(plan: Plan, found: Sequence[Difference]) -> str:
    """Whether what was to count as a yes is there: ``reached``, ``not reached``, ``not decided`` or ``not judged``.

    By the comparisons that decide, all of them or any.
    """
    verdicts = [each.verdict for each in found if each.comparison.decides]
    if not verdicts:
        return "not judged"
    open_ = [verdict in ("interim", "not decided") for verdict in verdicts]
    yes = [verdict == "yes" for verdict in verdicts]
    if plan.decided_by == "any":
        return "reached" if any(yes) else "not decided" if any(open_) else "not reached"
    failed = [not (is_yes or is_open) for is_yes, is_open in zip(yes, open_, strict=True)]
    return "not reached" if any(failed) else "not decided" if any(open_) else "reached"


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The 95 % interval of a mean, and the p value of its being zero (two-sided t test).

    Example:
        >>> [round(number, 3) for number in interval([1.0, 2.0, 3.0])]
        [-0.484, 4.484, 0.074]
    """
    mean, error = float(np.mean(values)), float(stats.sem(values))
    if error == 0:
        return mean, mean, 1.0  # seeds that all differ by the same say nothing of how seeds differ
    test = stats.ttest_1samp(values, 0.0)
    half = float(stats.t.ppf(1 - LEVEL / 2, len(values) - 1)) * error
    return mean - half, mean + half, float(test.pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """P values after Holm's step-down correction (Scandinavian Journal of Statistics 6, 1979).

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    corrected, highest = [1.0] * len(p), 0.0
    for place, index in enumerate(np.argsort(p, kind="stable")):
        highest = max(highest, min(1.0, (len(p) - place) * p[index]))
        corrected[index] = highest
    return corrected
