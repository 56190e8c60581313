"""Thresholds that give the best metric for a mean cost, chosen on held-out samples whose targets are known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cycledistill.adaptive.calibration.by_shares import (
    Calibration,
    calibration_of,
    choose_thresholds,
    places_of,
    threshold_between,
    thresholds_of_shares,
)
from cycledistill.adaptive.calibration.data import Collected, ExitCosts

_ROUNDS, _HALVINGS, _MIXTURES, _SETTLED = 20, 20, 64, 8
_ROUNDING = 1e-9

Thresholds = tuple[float, ...]


def chosen(data: Collected, budget: float, exits: tuple[int, ...]) -> Calibration:
    """Thresholds for a budget: by the scores of the samples where they have some, else by their confidences alone."""
    if data.scores is None:
        return choose_thresholds(data.confidences, data.costs, budget, exits)
    return choose_by_metric(data.confidences, data.scores, data.costs, budget, exits)


def choose_by_metric(
    confidences: Tensor, scores: Tensor, costs: ExitCosts, budget: float, exits: tuple[int, ...]
) -> Calibration:
    """The thresholds whose mean score on these samples is the largest found within the budget.

    A price on cost makes one number of a sample at an exit, score - price x cost. Thresholds are set in turn, each to
    the best place given the others, until none moves. First so for a price, which is found by bisection; the shares
    that the prices around the budget send to each exit are mixed; then within the budget, from the best of all these,
    of the thresholds that need no targets, and of all samples at one exit. A single threshold is so the best there is;
    of several no better ones were found. Of equal scores the cheapest is taken.

    Args:
        confidences: (S, exits - 1); NaN never leaves.
        scores: (S, exits), the larger the better.
        costs: Of a sample at each exit.
        budget: Mean cost as a multiple of the whole model at one cycle.
        exits: The cycles that samples may leave after.

    Raises:
        ValueError: No thresholds reach the budget, or a score is not finite.
    """
    if not scores.isfinite().all():
        wrong = int((~scores.isfinite()).any(1).sum())
        raise ValueError(f"metric: finite numbers are expected, and of {wrong} of {len(scores)} samples it gave others")
    by_shares = choose_thresholds(confidences, costs, budget, exits).threshold
    samples = _Samples(confidences, scores, torch.tensor(costs.relative, dtype=torch.float64))

    def rank(threshold: Thresholds) -> tuple[float, float, Thresholds]:
        return samples.score(threshold), -samples.cost(threshold), threshold

    starts = [by_shares, *_alone(confidences)]
    tried = {*starts, *_by_prices(samples, starts, budget)}
    within = sorted((each for each in tried if samples.cost(each) <= budget + _ROUNDING), key=rank)
    best = max((samples.settled(each, 0.0, budget) for each in within[-_SETTLED:]), key=rank)
    return calibration_of(confidences, costs, budget, exits, best, samples.score(best))


@dataclass(frozen=True)
class _Samples:
    """Samples at every exit: how sure they are, (S, exits - 1), how good, (S, exits), and what one costs, (exits,)."""

    confidences: Tensor
    scores: Tensor
    costs: Tensor

    def cost(self, threshold: Thresholds) -> float:
        return float(self.costs[places_of(self.confidences, threshold)].mean())

    def score(self, threshold: Thresholds, price: float = 0.0) -> float:
        """The mean score, less the price of the mean cost."""
        places = places_of(self.confidences, threshold)
        return float(_at(self.scores, places).mean()) - price * float(self.costs[places].mean())

    def shares(self, threshold: Thresholds) -> Tensor:
        """Of the samples, at each exit."""
        places = places_of(self.confidences, threshold)
        return torch.bincount(places, minlength=len(self.costs)).double() / len(places)

    def settled(self, threshold: Thresholds, price: float, budget: float = math.inf) -> Thresholds:
        """Thresholds moved one at a time, from the last exit to the first, as long as the score grows."""
        for _ in range(_ROUNDS):
            moved = threshold
            for place in reversed(range(len(threshold))):
                moved = self._moved(moved, place, price, budget)
            if self.score(moved, price) <= self.score(threshold, price):
                break
            threshold = moved
        return threshold

    def _moved(self, threshold: Thresholds, place: int, price: float, budget: float) -> Thresholds:
        """The best threshold at one exit, the others as they are; where none is in the budget, as it was."""
        before = torch.tensor(threshold[:place], dtype=torch.float64)
        come = ~(self.confidences[:, :place] >= before).any(1) & ~self.confidences[:, place].isnan()
        later = places_of(self.confidences[:, place + 1 :], threshold[place + 1 :]) + place + 1
        sure, order = self.confidences[come, place].sort(descending=True)
        later = later[come][order]
        gain = self.scores[come][order, place] - _at(self.scores[come][order], later)
        saved = self.costs[later] - self.costs[place]
        cost = self.cost((*threshold[:place], math.inf, *threshold[place + 1 :])) - _sums(saved) / len(come)
        total = _sums(gain + price * saved)  # of the n surest, n = 0, 1, ...
        total[1:-1][sure[1:] == sure[:-1]] = -math.inf  # equal confidences leave together
        total[cost > budget + _ROUNDING] = -math.inf
        if total.max() == -math.inf:
            return threshold
        return (*threshold[:place], threshold_between(sure, int(total.argmax())), *threshold[place + 1 :])


def _by_prices(samples: _Samples, starts: Sequence[Thresholds], budget: float) -> Iterator[Thresholds]:
    """The best thresholds for prices that close in on the budget, and mixtures of the two that came nearest to it."""
    scale = float(samples.scores.max() - samples.scores.min())
    low, high = -16.0, 8.0  # log of the price, in units of the spread of scores
    cheaper, dearer = starts[1], starts[-1]
    for _ in range(_HALVINGS if scale > 0 else 0):
        middle = (low + high) / 2
        price = scale * math.exp(middle)
        found = max((samples.settled(each, price) for each in starts), key=lambda each: samples.score(each, price))
        yield found
        if samples.cost(found) <= budget:
            high, cheaper = middle, found
        else:
            low, dearer = middle, found
    one, other = samples.shares(cheaper), samples.shares(dearer)
    for part in range(1, _MIXTURES):
        yield thresholds_of_shares(samples.confidences, one + (other - one) * part / _MIXTURES)


def _alone(confidences: Tensor) -> Iterator[Thresholds]:
    """For each exit, thresholds by which all samples leave there; those that are never sure, later."""
    least = [threshold_between(known, len(known)) for known in (each[~each.isnan()] for each in confidences.unbind(1))]
    for place in range(len(least) + 1):
        yield (math.inf,) * place + tuple(least[place:])


def _at(values: Tensor, places: Tensor) -> Tensor:
    return values.gather(1, places.unsqueeze(1)).squeeze(1)


def _sums(values: Tensor) -> Tensor:
    """Of the first n values, n = 0, 1, ..."""
    return torch.cat((values.new_zeros(1), values.cumsum(0)))
