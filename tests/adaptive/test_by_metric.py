"""Thresholds that are chosen by a metric: against all that there are, and in calls."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cycledistill.adaptive import AdaptiveExit, top_1
from cycledistill.adaptive.calibration.by_metric import FEW, choose_by_metric, warn_of_few
from cycledistill.adaptive.calibration.by_shares import choose_by_shares, places_of
from cycledistill.adaptive.calibration.data import Collected, ExitCosts
from tests import toys
from tests.adaptive.models import EXITS, wrapped


def costs_of(exits: int) -> ExitCosts:
    """A sample that leaves later paid for the tails before."""
    return ExitCosts(tuple(1 + 1.05 * k for k in range(exits)), tuple(1.0 + k for k in range(exits)), 1.0)


def drawn(samples: int, exits: int, seed: int) -> tuple[Tensor, Tensor]:
    """Confidences that say nothing, and scores: right or wrong, or any number."""
    noise = torch.Generator().manual_seed(seed)
    confidences = torch.rand(samples, exits - 1, generator=noise, dtype=torch.float64)
    scores = torch.rand(samples, exits, generator=noise, dtype=torch.float64)
    return confidences, (scores > 0.4).double() if seed % 2 else -10 * scores


def best_of_all(confidences: Tensor, scores: Tensor, costs: ExitCosts, budget: float) -> float:
    """The best mean score within the budget, one sample and one set of thresholds after the other."""
    best = -math.inf
    for threshold in itertools.product(*([*set(column), math.inf] for column in confidences.T.tolist())):
        total, spent = 0.0, 0.0
        for sure, score in zip(confidences.tolist(), scores.tolist(), strict=True):
            place = next((k for k, least in enumerate(threshold) if sure[k] >= least), len(threshold))
            total, spent = total + score[place], spent + costs.relative[place]
        if spent <= budget * len(scores) + 1e-9:
            best = max(best, total / len(scores))
    return best


@pytest.mark.parametrize("budget", [1.2, 1.5, 1.9])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_one_threshold_is_the_best_there_is(seed: int, ties: bool, budget: float) -> None:
    confidences, scores = drawn(300 if ties else 30, 2, seed)
    confidences = (150 * confidences).round() if ties else confidences
    found = choose_by_metric(confidences, scores, costs_of(2), budget, (1, 2))
    assert found.score == pytest.approx(best_of_all(confidences, scores, costs_of(2), budget))
    assert found.cost <= budget + 1e-9


def informed(samples: int, exits: int, seed: int) -> tuple[Tensor, Tensor]:
    """Easy and hard samples, whose answers get better from exit to exit, and confidences that tell a part of it."""
    noise = torch.Generator().manual_seed(seed)
    ease = torch.randn(samples, 1, generator=noise, dtype=torch.float64) + 0.5 * torch.arange(exits)
    right = ease + 0.5 * torch.randn(samples, exits, generator=noise, dtype=torch.float64) > 0.5
    return (ease + torch.randn(samples, exits, generator=noise, dtype=torch.float64))[:, :-1], right.double()


def best_of_two(confidences: Tensor, scores: Tensor, costs: ExitCosts, budget: float) -> float:
    """The best mean score of three exits: every first threshold, and for each every second one."""
    number, relative = len(scores), torch.tensor(costs.relative, dtype=torch.float64)
    first = confidences[:, 0].argsort(descending=True)
    best = -math.inf
    for count in range(number + 1):
        leave, rest = first[:count], first[count:]
        rest = rest[confidences[rest, 1].argsort(descending=True)]
        gain = torch.cat((torch.zeros(1), (scores[rest, 1] - scores[rest, 2]).cumsum(0)))
        total = scores[leave, 0].sum() + scores[rest, 2].sum() + gain
        second = torch.arange(len(rest) + 1)
        spent = count * relative[0] + second * relative[1] + (len(rest) - second) * relative[2]
        best = max([best, *(total[spent <= budget * number + 1e-9] / number).tolist()])
    return best


@pytest.mark.slow
def test_several_thresholds_come_near_the_best() -> None:
    """Within a sixth of a sample on average."""
    missed = []
    for seed, budget in itertools.product(range(8), (1.2, 1.6, 2.2)):
        confidences, scores = informed(100, 3, seed)
        found = choose_by_metric(confidences, scores, costs_of(3), budget, EXITS)
        best = best_of_two(confidences, scores, costs_of(3), budget)
        assert found.score is not None and found.score <= best + 1e-9 and found.cost <= budget + 1e-9
        missed.append(best - found.score)
    assert sum(missed) / len(missed) < 0.0016


@pytest.mark.parametrize("seed", range(3))
def test_no_threshold_can_be_moved_to_a_better_place(seed: int) -> None:
    confidences, scores = informed(80, 4, seed)
    relative = torch.tensor(costs_of(4).relative, dtype=torch.float64)
    found = choose_by_metric(confidences, scores, costs_of(4), 1.9, (1, 2, 3, 4))
    for place, column in enumerate(confidences.unbind(1)):
        for moved in (*column.tolist(), math.inf):
            places = places_of(confidences, (*found.threshold[:place], moved, *found.threshold[place + 1 :]))
            if relative[places].mean() <= 1.9:
                assert scores.gather(1, places.unsqueeze(1)).mean() <= found.score + 1e-9


@pytest.mark.parametrize("seed", range(6))
def test_ties_and_what_is_never_sure_keep_to_the_budget(seed: int) -> None:
    confidences, scores = informed(60, 4, seed)
    confidences = (2 * confidences).round()
    confidences[torch.rand(confidences.shape, generator=torch.Generator().manual_seed(seed)) < 0.2] = math.nan
    blind = choose_by_shares(confidences, costs_of(4), 2.4, (1, 2, 3, 4))
    found = choose_by_metric(confidences, scores, costs_of(4), 2.4, (1, 2, 3, 4))
    places = places_of(confidences, found.threshold)
    spent = torch.tensor(costs_of(4).relative, dtype=torch.float64)[places].mean()
    assert float(spent) == pytest.approx(found.cost) and found.cost <= 2.4 + 1e-9
    assert float(scores.gather(1, places.unsqueeze(1)).mean()) == pytest.approx(found.score)
    taken = scores.gather(1, places_of(confidences, blind.threshold).unsqueeze(1)).mean()
    assert found.score is not None and found.score >= float(taken)


def test_of_equal_scores_the_cheapest_is_taken_also_where_most_are_right() -> None:
    confidences, scores = informed(300, 2, 0)
    found = choose_by_metric(confidences, scores, costs_of(2), 1.3, (1, 2))
    order = confidences[:, 0].argsort(descending=True)
    total = [float(scores[order[:count], 0].sum() + scores[order[count:], 1].sum()) for count in range(301)]
    spent = [1 + 1.05 * (300 - count) / 300 for count in range(301)]
    best = max(each for each, cost in zip(total, spent, strict=True) if cost <= 1.3)
    cheapest = min(cost for each, cost in zip(total, spent, strict=True) if each == best and cost <= 1.3)
    assert found.score == pytest.approx(best / 300) and found.cost == pytest.approx(cheapest)


def test_what_a_sample_has_at_every_exit_decides_nothing() -> None:
    confidences, scores = informed(200, 3, 2)
    found = choose_by_metric(confidences, scores, costs_of(3), 1.6, EXITS)
    offset = torch.zeros(200, 1).double()
    offset[7] = 2.0**27
    assert choose_by_metric(confidences, scores + offset, costs_of(3), 1.6, EXITS).threshold == found.threshold


def test_few_samples_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    for number, told in ((FEW - 1, True), (FEW, False)):
        caplog.clear()
        warn_of_few(Collected(*informed(number, 2, 0), costs_of(2)))
        assert ("take 500 or more" in caplog.text) is told
    adaptive = AdaptiveExit(wrapped(), EXITS)
    for ask in (
        lambda: adaptive.calibrate(loader(), 1.9, top_1),
        lambda: adaptive.curve(loader(), points=3, held_out=loader(10), by_metric=True),
    ):
        caplog.clear()
        ask()
        assert caplog.text.count("40 samples are fitted to them") == 1
    caplog.clear()
    adaptive.calibrate(loader(), 1.9)
    assert not caplog.records


@pytest.mark.parametrize("budget", [1.0, 1.3, 2.0, 2.7, 3.1])
def test_an_exit_that_is_sure_and_wrong_is_passed_by(budget: float) -> None:
    """Shares in geometric proportion send samples there; sending all to one exit is tried too, so it is no better."""
    confidences, scores = drawn(200, 3, 1)
    confidences[:, 0] += 1
    scores[:, 0] = 0
    found = choose_by_metric(confidences, scores, costs_of(3), budget, EXITS)
    blind = choose_by_shares(confidences, costs_of(3), budget, EXITS)
    taken = scores.gather(1, places_of(confidences, blind.threshold).unsqueeze(1)).mean()
    assert found.score is not None and found.score >= float(taken)
    for place, cost in enumerate(costs_of(3).relative):
        assert cost > budget or found.score >= float(scores[:, place].mean())
    if budget == 2.7:
        assert found.shares[0] == 0 < blind.shares[0] and found.score > float(taken)


def test_of_equal_scores_the_cheapest_is_taken() -> None:
    confidences, _ = drawn(40, 3, 0)
    found = choose_by_metric(confidences, torch.ones(40, 3).double(), costs_of(3), 2.5, EXITS)
    assert found.shares == (1, 0, 0) and found.cost == 1 and found.score == 1


def test_what_is_never_sure_never_leaves() -> None:
    confidences, scores = drawn(40, 3, 1)
    confidences[:, 0] = math.nan
    found = choose_by_metric(confidences, scores, costs_of(3), 2.5, EXITS)
    assert found.shares[0] == 0 and found.threshold[0] == math.inf
    with pytest.raises(ValueError, match=r"between 2\.0500"):
        choose_by_metric(confidences, scores, costs_of(3), 1.4, EXITS)


def test_equal_confidences_leave_together() -> None:
    confidences, scores = torch.full((10, 1), 0.5).double(), drawn(10, 2, 0)[1]
    scores[:, 0], scores[:5, 1], scores[5:, 1] = 0, 1, -1
    found = choose_by_metric(confidences, scores, costs_of(2), 1.6, (1, 2))
    assert found.shares == (1, 0), "no threshold sends the first five alone to the second exit"


def loader(start: int = 0) -> list[Any]:
    return [toys.batch(seed=seed, size=10) for seed in range(start, start + 4)]


def test_calibrate_by_a_metric_promises_what_calls_give() -> None:
    adaptive = AdaptiveExit(wrapped(), EXITS)
    found = adaptive.calibrate(loader(), 1.9, top_1)
    assert found.score is not None and found.threshold == adaptive.threshold and found.cost <= 1.9
    right, costs = [], []
    with torch.no_grad():
        for x, y in loader():
            right.append(adaptive(x).argmax(1) == y)
            costs.append(adaptive.mean_cost())
    assert float(torch.cat(right).double().mean()) == pytest.approx(found.score)
    assert sum(costs) / 4 == pytest.approx(found.cost)
    assert f"metric {found.score:.4f}" in str(found) and "metric" not in str(adaptive.calibrate(loader(), 1.9))
    adaptive.threshold = found.threshold  # in the range that may be set


@pytest.mark.slow
def test_a_curve_by_the_metric_has_the_thresholds_of_calibrate() -> None:
    adaptive = AdaptiveExit(wrapped(), EXITS)
    curve = adaptive.curve(loader(), points=3, held_out=loader(10), by_metric=True)
    adaptive.calibrate(loader(10), (1 + AdaptiveExit(adaptive.model).calibrate(loader(10), 1.0).cost) / 2, top_1)
    assert curve.rows[3].threshold == adaptive.threshold
    blind = adaptive.curve(loader(), points=9, held_out=[x for x, _ in loader(10)])
    assert [row.threshold for row in blind.rows] == [
        row.threshold for row in adaptive.curve(loader(), points=9, held_out=loader(10)).rows
    ], "targets that are there are not used unless they are asked for"


def test_what_cannot_be_chosen_by_a_metric_is_refused() -> None:
    adaptive = AdaptiveExit(wrapped(), EXITS)
    with pytest.raises(ValueError, match="by_metric=True: give held_out=, other data with targets"):
        adaptive.curve(loader(), by_metric=True)
    with pytest.raises(ValueError, match="no target"):
        adaptive.calibrate([x for x, _ in loader()], 1.9, top_1)
    with pytest.raises(ValueError, match="no target"):
        adaptive.curve(loader(), held_out=[x for x, _ in loader()], by_metric=True)
    with pytest.raises(ValueError, match="metric: finite numbers are expected, and of 40 of 40 samples it gave others"):
        adaptive.calibrate(loader(), 1.9, lambda output, target: torch.full(target.shape, math.nan))
    with pytest.raises(TypeError, match=r"metric: one number a sample is expected, a tensor \(10,\)"):
        adaptive.calibrate(loader(), 1.9, lambda output, target: output.mean())
    for wrong in ("top_1", 0.5):
        with pytest.raises(TypeError, match=rf"metric='?{wrong}'?: a callable .* such as cycledistill.adaptive.top_1"):
            adaptive.calibrate(loader(), 1.9, wrong)  # type: ignore[arg-type]
    assert adaptive.threshold is None
