"""Thresholds for a mean cost, chosen on the confidences of held-out samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cycledistill.adaptive.calibration.data import ExitCosts

ROUNDING = 1e-9
"""By which a mean cost may pass a budget."""


@dataclass(frozen=True)
class Calibration:
    """Thresholds, and what they give on the samples that they were chosen on.

    Attributes:
        exits: The cycles that samples may leave after.
        threshold: One for each exit but the last; ``math.inf`` where none leaves.
        shares: Of the samples, at each exit.
        cost: Mean cost of a sample, as a multiple of the whole model at one cycle.
        macs: The same in multiply-accumulates.
        budget: The cost that was asked for.
        samples: How many samples these are.
        score: Mean of the metric that the thresholds were chosen by; ``None`` where they were chosen without targets.
            On the samples that they are fitted to: it flatters, and `AdaptiveExit.curve` with other data does not.
    """

    exits: tuple[int, ...]
    threshold: tuple[float, ...]
    shares: tuple[float, ...]
    cost: float
    macs: float
    budget: float
    samples: int
    score: float | None = None

    def __str__(self) -> str:
        scored = "" if self.score is None else f", metric {self.score:.4f}"
        lines = [
            f"budget {self.budget:.3f}, mean cost {self.cost:.3f} of one cycle ({self.macs / 1e9:.4g} GMACs), "
            f"{self.samples} samples{scored}",
            f"{'exit':>6}{'threshold':>12}{'share':>9}",
        ]
        for each, threshold, share in zip(self.exits, (*self.threshold, None), self.shares, strict=True):
            shown = "the rest" if threshold is None else f"{threshold:.4f}"
            lines.append(f"{each:>6}{shown:>12}{100 * share:>8.1f}%")
        return "\n".join(lines)


def choose_by_shares(confidences: Tensor, costs: ExitCosts, budget: float, exits: tuple[int, ...]) -> Calibration:
    """The thresholds whose mean cost on these samples, (S, exits - 1), is the largest within the budget.

    Exit k takes a share proportional to r^k, the surest of those that come to it first. Proportions of this form are
    what MSDNet (Huang et al., ICLR 2018, arXiv 1703.09844) supposes for a budgeted batch: a sample that reaches an exit
    leaves there with one probability q, which is r = 1 - q; r above 1 sends more to later exits than to earlier ones.
    The mean cost grows with r, so r is found by bisection. NaN never leaves.

    Raises:
        ValueError: No thresholds reach the budget; the range is named.
    """
    relative = torch.tensor(costs.relative, dtype=torch.float64)
    if isinstance(budget, bool) or not isinstance(budget, (int, float)) or math.isnan(budget):
        raise ValueError(f"budget={budget!r}: a number is expected, the mean cost as a multiple of one cycle")

    def tried(shares: Tensor) -> tuple[float, tuple[float, ...]]:
        threshold = thresholds_of_shares(confidences, shares)
        return float(relative[places_of(confidences, threshold)].mean()), threshold

    number = len(exits)
    low, high = tried(torch.eye(number, dtype=torch.float64)[0]), tried(torch.eye(number, dtype=torch.float64)[-1])
    if not low[0] - ROUNDING <= budget <= high[0] + ROUNDING:
        raise ValueError(
            f"budget={budget!r}: on these samples exits {exits} cost between {low[0]:.4f} (all leave as early as their "
            f"confidence allows) and {high[0]:.4f} (all run to the last) times one cycle"
        )
    best = high if budget >= high[0] - ROUNDING else low
    lower, upper = -40.0, 40.0  # log r
    for _ in range(60 if best is low else 0):
        middle = (lower + upper) / 2
        found = tried(torch.softmax(middle * torch.arange(number, dtype=torch.float64), 0))
        if found[0] <= budget:
            lower, best = middle, max(best, found, key=lambda each: each[0])
        else:
            upper = middle
    return calibration_of(confidences, costs, budget, exits, best[1])


def calibration_of(
    confidences: Tensor,
    costs: ExitCosts,
    budget: float,
    exits: tuple[int, ...],
    threshold: tuple[float, ...],
    score: float | None = None,
) -> Calibration:
    """What thresholds give on these samples."""
    places = places_of(confidences, threshold)
    mean = float(torch.tensor(costs.relative, dtype=torch.float64)[places].mean())
    shares = tuple((torch.bincount(places, minlength=len(exits)).double() / len(places)).tolist())
    return Calibration(exits, threshold, shares, mean, mean * costs.plain, float(budget), len(places), score)


def places_of(confidences: Tensor, threshold: tuple[float, ...]) -> Tensor:
    """At which of the exits each sample leaves, (S,), given its confidences (S, exits - 1)."""
    sure = confidences >= torch.tensor(threshold, dtype=torch.float64)
    last = torch.ones(len(sure), 1, dtype=torch.bool)
    return torch.cat((sure, last), 1).to(torch.uint8).argmax(1)


def thresholds_of_shares(confidences: Tensor, shares: Tensor) -> tuple[float, ...]:
    """Thresholds by which these shares of the samples leave at each exit, as far as confidences tell them apart.

    Samples that are too many, for they tie, or too few, for they are never sure, are made up for at the next exit.
    """
    left = torch.ones(len(confidences), dtype=torch.bool)
    threshold = []
    for column, share in zip(confidences.unbind(1), shares.cumsum(0)[:-1].tolist(), strict=True):
        known = column[left & ~column.isnan()]
        due = round(share * len(column)) - int((~left).sum())
        count = min(max(due, 0), len(known))
        least = threshold_between(known, count)
        left &= ~(column >= least)
        threshold.append(least)
    return tuple(threshold)


def threshold_between(values: Tensor, count: int) -> float:
    """A threshold that ``count`` of the values reach: half-way to the next, which rounds otherwise in other batches."""
    if count == 0:
        return math.inf
    ordered = values.topk(min(count + 1, len(values))).values.tolist()
    middle = sum(ordered[-2:]) / 2 if len(ordered) > count else math.nan
    # Between two neighbours among floating-point numbers there is nothing.
    return middle if math.isfinite(middle) and middle > ordered[-1] else ordered[count - 1]
