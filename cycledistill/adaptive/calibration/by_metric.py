"""Thresholds that give the best metric for a mean cost, chosen on held-out samples whose targets are known."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cycledistill.adaptive.calibration.by_shares import (
    ROUNDING,
    Calibration,
    calibration_of,
    choose_by_shares,
    places_of,
    threshold_between,
    thresholds_of_shares,
)
from cycledistill.adaptive.calibration.data import Collected, ExitCosts

_logger = logging.getLogger(__name__)

FEW = 500
"""Of fewer samples it is said that thresholds of a metric are fitted to them."""
_ROUNDS, _HALVINGS, _MIXTURES, _ASCENDED = 20, 20, 64, 16

Thresholds = tuple[float, ...]


def choose_thresholds(data: Collected, budget: float, exits: tuple[int, ...]) -> Calibration:
    """Thresholds for a budget: by the scores of the samples where they have some, else by their confidences alone."""
    if data.scores is None:
        return choose_by_shares(data.confidences, data.costs, budget, exits)
    return choose_by_metric(data.confidences, data.scores, data.costs, budget, exits)


def warn_of_few(data: Collected) -> None:
    """Say where thresholds would be chosen by a metric on few samples."""
    if data.scores is not None and len(data.scores) < FEW:
        _logger.warning(
            "thresholds chosen by a metric on %d samples are fitted to them: take %d or more, or choose without it",
            len(data.scores),
            FEW,
        )


def choose_by_metric(
    confidences: Tensor, scores: Tensor, costs: ExitCosts, budget: float, exits: tuple[int, ...]
) -> Calibration:
    """The thresholds whose mean score on these samples is the largest found within the budget.

    A Lagrange multiplier, the price of cost, makes one number of a sample at an exit: score - price x cost. Coordinate
    ascent sets one threshold after the other to the best place given the others; so for prices that bisection brings
    near the budget, whose shares at the exits are then mixed; and from the best of all these, of thresholds by shares
    and of all samples at one exit once more, within the budget. A single threshold is the best there is. Several are a
    local optimum, mostly within a few samples of the best, and never worse than what was begun with within the budget.
    Of equal scores the cheapest found is taken.

    Args:
        confidences: (S, exits - 1); NaN never leaves.
        scores: (S, exits), the larger the better.
        costs: Of a sample at each exit.
        budget: Mean cost as a multiple of the whole model at one cycle.
        exits: The cycles that samples may leave after.

    Raises:
        ValueError: No thresholds reach the budget, or a score is not finite.

    Source: multipliers for a budget: Everett, Operations Research 11(3), 1963.
    """
    if not scores.isfinite().all():
        wrong = int((~scores.isfinite()).any(1).sum())
        raise ValueError(f"metric: finite numbers are expected, and of {wrong} of {len(scores)} samples it gave others")
    by_shares = choose_by_shares(confidences, costs, budget, exits).threshold
    # What a sample has at every exit alike decides nothing, and may be large.
    samples = _Samples(confidences, scores - scores[:, :1], torch.tensor(costs.relative, dtype=torch.float64))

    def rank(threshold: Thresholds) -> tuple[float, float, Thresholds]:
        return samples.score(threshold), -samples.cost(threshold), threshold

    tried = {by_shares, *_at_one_exit(confidences), *_by_prices(samples, by_shares, budget)}
    within = sorted((each for each in tried if samples.cost(each) <= budget + ROUNDING), key=rank)
    best = max((samples.ascended(each, 0.0, budget) for each in within[-_ASCENDED:]), key=rank)
    score = float(_at(scores, places_of(confidences, best)).mean())
    return calibration_of(confidences, costs, budget, exits, best, score)


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

    def ascended(self, threshold: Thresholds, price: float, budget: float = math.inf) -> Thresholds:
        """Coordinate ascent: thresholds moved one at a time, from the last exit on, as long as the score grows.

        Or the cost falls at an equal score.
        """

        def rank(each: Thresholds) -> tuple[float, float]:
            return self.score(each, price), -self.cost(each)

        for _ in range(_ROUNDS):
            moved = threshold
            for place in reversed(range(len(threshold))):
                moved = self._moved(moved, place, price, budget)
            if rank(moved) <= rank(threshold):
                break
            threshold = moved
        return threshold

    def _moved(self, threshold: Thresholds, place: int, price: float, budget: float) -> Thresholds:
        """The best threshold at one exit, the others as they are; where none is in the budget, as it was."""
        before = torch.tensor(threshold[:place], dtype=torch.float64)
        come = ~(self.confidences[:, :place] >= before).any(1) & ~self.confidences[:, place].isnan()
        later = places_of(self.confidences[:, place + 1 :], threshold[place + 1 :]) + place + 1
        sure, order = self.confidences[come, place].sort(descending=True)
        later, scores = later[come][order], self.scores[come][order]
        saved = self.costs[later] - self.costs[place]
        none = self.cost((*threshold[:place], math.inf, *threshold[place + 1 :]))
        cost = none - _sums(saved) / len(self.scores)
        total = _sums(scores[:, place] - _at(scores, later) + price * saved)  # of the n surest, n = 0, 1, ...
        total[1:-1][sure[1:] == sure[:-1]] = -math.inf  # equal confidences leave together
        total[cost > budget + ROUNDING] = -math.inf
        if total.max() == -math.inf:
            return threshold
        surest = int((total == total.max()).nonzero()[-1])  # of equals the cheapest: the most that leave
        return (*threshold[:place], threshold_between(sure, surest), *threshold[place + 1 :])


def _by_prices(samples: _Samples, by_shares: Thresholds, budget: float) -> Iterator[Thresholds]:
    """The best thresholds for prices that close in on the budget, and mixtures of the two that came nearest to it."""
    cheaper, *_, dearer = _at_one_exit(samples.confidences)
    scale = float(samples.scores.max() - samples.scores.min())
    low, high = -16.0, 8.0  # log of the price, in units of the spread of scores
    found = by_shares
    for _ in range(_HALVINGS if scale > 0 else 0):
        middle = (low + high) / 2
        price = scale * math.exp(middle)
        found = samples.ascended(found, price)
        yield found
        if samples.cost(found) <= budget:
            high, cheaper = middle, found
        else:
            low, dearer = middle, found
    one, other = samples.shares(cheaper), samples.shares(dearer)
    for part in range(1, _MIXTURES):
        yield thresholds_of_shares(samples.confidences, one + (other - one) * part / _MIXTURES)


def _at_one_exit(confidences: Tensor) -> Iterator[Thresholds]:
    """For each exit, thresholds by which all samples leave there; those that are never sure, later."""
    least = [threshold_between(known, len(known)) for known in (each[~each.isnan()] for each in confidences.unbind(1))]
    for place in range(len(least) + 1):
        yield (math.inf,) * place + tuple(least[place:])


def _at(values: Tensor, places: Tensor) -> Tensor:
    return values.gather(1, places.unsqueeze(1)).squeeze(1)


def _sums(values: Tensor) -> Tensor:
    """Of the first n values, n = 0, 1, ..."""
    return torch.cat((values.new_zeros(1), values.cumsum(0)))
