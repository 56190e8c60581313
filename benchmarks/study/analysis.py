"""What the runs of a study say: means by arm, paired differences with intervals, and verdicts from these numbers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from .plan import Comparison, Plan, split_side
from .results import Record

LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """A comparison over the seeds that both sides have.

    Attributes:
        comparison: Which.
        metric: Of what, in percent.
        values: Left less right, a point a seed.
        low, high: The 95 % interval of their mean (t distribution), not corrected.
        p: That of the paired t test, two-sided.
        corrected: p after Holm's correction for the number of the study's comparisons.
    """

    comparison: Comparison
    metric: str
    values: tuple[float, ...]
    low: float
    high: float
    p: float
    corrected: float = 1.0

    @property
    def mean(self) -> float:
        """Points."""
        return statistics.fmean(self.values)

    @property
    def wins(self) -> int:
        """Seeds in which the left side is higher."""
        return sum(value > 0 for value in self.values)

    @property
    def verdict(self) -> str:
        """``yes``, ``no`` where the right side is higher, or ``not told apart``; after the correction."""
        if not self.corrected < LEVEL:
            return "not told apart"
        return "yes" if self.mean > 0 else "no"


def readings(runs: Sequence[Record], arm: str, exit: int, metric: str) -> dict[int, float]:
    """An arm at an exit: seed -> percent; runs that diverged have none."""
    return {run["seed"]: run["metrics"][metric][str(exit)] for run in runs if run["arm"] == arm and not run["diverged"]}


def differences(plan: Plan, runs: Sequence[Record]) -> list[Difference]:
    """All comparisons of a plan that at least two seeds allow, in its order, corrected for their number."""
    found = []
    for comparison in plan.comparisons:
        metric = comparison.metric or plan.metrics[0]
        left, right = (readings(runs, *split_side(side), metric) for side in (comparison.left, comparison.right))
        values = tuple(left[seed] - right[seed] for seed in sorted(left.keys() & right.keys()))
        if len(values) > 1:
            found.append(Difference(comparison, metric, values, *interval(values)))
    return [
        replace(each, corrected=corrected)
        for each, corrected in zip(found, holm([each.p for each in found]), strict=True)
    ]


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The 95 % interval of a mean, and the p value of its being zero (two-sided t test).

    Example:
        >>> [round(number, 3) for number in interval([1.0, 2.0, 3.0])]
        [-0.484, 4.484, 0.074]
    """
    mean, error = float(np.mean(values)), float(stats.sem(values))
    if error == 0:
        return mean, mean, 0.0 if mean else 1.0
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
