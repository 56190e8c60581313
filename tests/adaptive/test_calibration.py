"""Thresholds meet their budget, costs are what runs, and the curve is what the thresholds give."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cycledistill import at_exit
from cycledistill.adaptive import AdaptiveExit, Calibration, Curve
from cycledistill.adaptive.calibration.by_shares import choose_by_shares, places_of
from cycledistill.adaptive.calibration.data import ExitCosts, exit_costs, split_batch
from cycledistill.cost.macs import MacCounter
from tests import toys
from tests.adaptive.models import EXITS, fixed, wobble, wrapped

COSTS = ExitCosts((10.0, 22.0, 34.0), (10.0, 20.0, 30.0), 10.0)


def confidences(number: int = 400, exits: int = 3) -> Tensor:
    return torch.rand(number, exits - 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def loader(batches: int = 4, size: int = 10) -> list[Any]:
    return [toys.batch(seed=seed, size=size) for seed in range(batches)]


def mean_cost(values: Tensor, threshold: tuple[float, ...], costs: ExitCosts = COSTS) -> float:
    """One sample at a time."""
    total = 0.0
    for row in values.tolist():
        place = next((k for k, (value, least) in enumerate(zip(row, threshold, strict=True)) if value >= least), -1)
        total += costs.relative[place]
    return total / len(values)


@pytest.mark.parametrize("budget", [1.0, 1.1, 1.4, 2.0, 2.2, 3.0, 3.3999, 3.4])
def test_a_budget_is_met_to_a_sample_and_never_passed(budget: float) -> None:
    values = confidences()
    found = choose_by_shares(values, COSTS, budget, EXITS)
    assert found.cost == pytest.approx(mean_cost(values, found.threshold))
    assert budget - 3 * 1.2 / len(values) <= found.cost <= budget + 1e-9
    assert found.macs == pytest.approx(10 * found.cost) and sum(found.shares) == pytest.approx(1)
    counts = [round(share * len(values)) for share in found.shares]
    assert counts == torch.bincount(places_of(values, found.threshold), minlength=3).tolist()


def test_shares_are_in_geometric_proportion() -> None:
    found = choose_by_shares(confidences(4000, 4), ExitCosts((1.0, 2.0, 3.0, 4.0), (1.0,) * 4, 1.0), 2.0, (1, 2, 3, 4))
    a, b, c, d = found.shares
    assert b / a == pytest.approx(c / b, abs=0.02) == pytest.approx(d / c, abs=0.02)


def test_the_surest_leave_first() -> None:
    values = confidences()
    found = choose_by_shares(values, COSTS, 2.0, EXITS)
    places = places_of(values, found.threshold)
    assert values[places == 0, 0].min() > values[places > 0, 0].max()


@pytest.mark.parametrize("budget", [0.9, 3.5, -1.0, math.inf])
def test_a_budget_out_of_reach_names_the_range(budget: float) -> None:
    with pytest.raises(ValueError, match=r"between 1\.0000 .* and 3\.4000"):
        choose_by_shares(confidences(), COSTS, budget, EXITS)


@pytest.mark.parametrize("budget", [math.nan, "1.4", True, None])
def test_a_budget_is_a_number(budget: Any) -> None:
    with pytest.raises(ValueError, match="budget="):
        choose_by_shares(confidences(), COSTS, budget, EXITS)


def test_what_is_never_sure_never_leaves() -> None:
    values = confidences()
    values[:, 0] = math.nan  # as "agreement" at the first exit
    found = choose_by_shares(values, COSTS, 2.5, EXITS)
    assert found.shares[0] == 0 and found.threshold[0] == math.inf and found.cost <= 2.5
    with pytest.raises(ValueError, match=r"between 2\.2000"):
        choose_by_shares(values, COSTS, 1.4, EXITS)


def test_a_threshold_lies_between_two_confidences() -> None:
    """Not on one, which another size of batch may round to the other side."""
    values = torch.tensor([[0.9], [0.2], [0.6], [0.5]]).double()
    costs = ExitCosts((1.0, 2.0), (1.0, 2.0), 1.0)
    for budget, expected in ((1.0, 0.2), (1.25, 0.35), (1.5, 0.55), (1.75, 0.75), (2.0, math.inf)):
        (found,) = choose_by_shares(values, costs, budget, (1, 2)).threshold
        assert found == pytest.approx(expected)
    values[0] = math.inf
    (found,) = choose_by_shares(values, costs, 1.75, (1, 2)).threshold
    assert found == math.inf and places_of(values, (found,)).tolist() == [0, 1, 1, 1]


def test_ties_leave_together_within_the_budget() -> None:
    values = torch.cat([torch.ones(30, 2), torch.zeros(70, 2)]).double()
    found = choose_by_shares(values, COSTS, 2.9, EXITS)
    assert found.cost <= 2.9 and found.shares[0] in (0.0, 0.3)


@pytest.mark.parametrize("confidence", ["probability", "entropy", "agreement", pytest.param(wobble, id="callable")])
def test_calibrate_sets_thresholds_and_promises_the_cost_that_calls_have(confidence: Any) -> None:
    adaptive = AdaptiveExit(wrapped(), EXITS, confidence)
    budget = 2.4 if confidence == "agreement" else 1.7
    found = adaptive.calibrate(loader(), budget)
    assert isinstance(found, Calibration) and found.samples == 40 and adaptive.threshold == found.threshold
    assert found.cost <= budget
    costs, reached = [], []
    with torch.no_grad():
        for x, _ in loader():
            reached += adaptive(x, return_exits=True)[1].tolist()
            costs.append(adaptive.mean_cost())
    assert [reached.count(each) / 40 for each in EXITS] == pytest.approx(found.shares)
    assert sum(costs) / 4 == pytest.approx(found.cost)
    assert f"budget {budget:.3f}, mean cost {found.cost:.3f}" in str(found) and "the rest" in str(found)


@pytest.mark.parametrize("exits", [(1, 2, 3), (2, 4)], ids=str)
def test_a_budget_counts_what_a_counter_counts(exits: tuple[int, ...]) -> None:
    """Once to the stack, each cycle, a tail at each exit reached: all samples sent to one exit, and counted."""
    model, (x, _) = wrapped(), toys.batch(size=4)
    with torch.no_grad(), at_exit(model, 1), MacCounter(model) as counter:
        model(x)
    one = counter.read().total
    for place in range(len(exits)):
        threshold = [math.inf] * place + [0.0] * (len(exits) - 1 - place)
        adaptive = AdaptiveExit(model, exits, threshold=threshold)
        with torch.no_grad():
            adaptive(x)
            with MacCounter(model) as counter:
                adaptive(x)
        assert adaptive.mean_cost() == pytest.approx(counter.read().total / one, rel=1e-12)


def test_the_curve_is_what_calls_give() -> None:
    model = wrapped()
    adaptive = AdaptiveExit(model, EXITS)
    curve = adaptive.curve(loader(), points=4)
    assert isinstance(curve, Curve) and curve.samples == 40 and adaptive.threshold is None
    assert [row.fixed for row in curve.rows] == [1, 2, 3, None, None, None, None]
    with torch.no_grad():
        for place, row in enumerate(curve.rows[:3]):
            right = [fixed(model, EXITS, x)[place].argmax(1) == y for x, y in loader()]
            assert row.accuracy == pytest.approx(float(torch.cat(right).double().mean()))
    assert [row.accuracy for row in (curve.rows[3], curve.rows[-1])] == [curve.rows[0].accuracy, curve.rows[2].accuracy]
    costs = [row.cost for row in curve.rows[3:]]
    assert costs == sorted(costs) and costs[0] == pytest.approx(1)
    assert curve.rows[2].cost < costs[-1], "a fixed exit pays one tail"
    middle = curve.rows[5]
    adaptive.threshold = middle.threshold
    with torch.no_grad():
        right = [adaptive(x).argmax(1) == y for x, y in loader()]
    assert float(torch.cat(right).double().mean()) == pytest.approx(middle.accuracy)
    assert "exit 2" in str(curve) and "adaptive" in str(curve) and len(curve.to_dict()["rows"]) == 7


def test_the_curve_takes_thresholds_from_held_out_data() -> None:
    adaptive = AdaptiveExit(wrapped(), EXITS)
    held_out = [toys.batch(seed=seed, size=10) for seed in range(10, 14)]
    curve = adaptive.curve(loader(), points=3, held_out=held_out)
    adaptive.calibrate(held_out, (1 + AdaptiveExit(adaptive.model).calibrate(held_out, 1.0).cost) / 2)
    assert curve.rows[3].threshold == adaptive.threshold


def test_one_exit_has_a_curve_of_one_point_and_nothing_to_calibrate() -> None:
    adaptive = AdaptiveExit(wrapped(), (2,))
    (row,) = adaptive.curve(loader()).rows
    assert row.fixed == 2 and row.shares == (1.0,)


def test_a_metric_of_ones_own() -> None:
    adaptive = AdaptiveExit(wrapped(), EXITS)
    curve = adaptive.curve(loader(), lambda output, target: -output.square().sum(1), points=2)
    assert curve.rows[0].accuracy < 0
    with pytest.raises(TypeError, match=r"metric: one number a sample is expected, a tensor \(10,\)"):
        adaptive.curve(loader(), lambda output, target: output.mean())


@pytest.mark.parametrize("points", [1, 2.0, True])
def test_points_are_at_least_two(points: Any) -> None:
    with pytest.raises(ValueError, match="points="):
        AdaptiveExit(wrapped(), EXITS).curve(loader(1), points=points)


def test_batches_of_every_form() -> None:
    x, y = toys.batch()
    (args, kwargs), target = split_batch((x, y))
    assert args[0] is x and not kwargs and target is y
    for alone in (x, [x], (x,)):
        (args, kwargs), target = split_batch(alone)
        assert len(args) == 1 and args[0] is x and not kwargs and target is None
    assert split_batch([(x, y), y])[0][0] == (x, y)
    (args, kwargs), target = split_batch({"pixel_values": x, "labels": y})
    assert not args and list(kwargs) == ["pixel_values"] and target is y
    for wrong in ([x, y, y], "x", 3):
        with pytest.raises(TypeError, match=r"a batch is a tensor of inputs .*, a pair"):
            split_batch(wrong)


def test_bad_loaders_are_refused() -> None:
    adaptive = AdaptiveExit(wrapped(), EXITS)
    with pytest.raises(ValueError, match="no batch"):
        adaptive.calibrate([], 1.5)
    for wrong in (None, toys.batch()[0], {"x": toys.batch()[0]}, 3):
        with pytest.raises(TypeError, match=rf"a loader of batches is expected.* a {type(wrong).__name__} was given"):
            adaptive.calibrate(wrong, 1.5)
    x, y = toys.batch()
    with pytest.raises(TypeError, match=rf"batch of {len(y)} samples holds 1 labels: one each is expected"):
        adaptive.curve([(x, y[:1])], points=2)
    for labels, shown in ((y.tolist(), "a list"), (y[:, None], r"a tensor \(\d, 1\)")):
        with pytest.raises(TypeError, match=f"target of a batch is {shown}: a tensor of labels"):
            adaptive.curve([(x, labels)], points=2)
    with pytest.raises(ValueError, match="no target"):
        adaptive.curve([toys.batch()[0]])
    with pytest.raises(ValueError, match="the last call, and there was none"):
        adaptive.mean_cost()


def test_costs_are_counted_once_until_the_model_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []

    def counting(*given: Any) -> ExitCosts:
        counted.append(given)
        return exit_costs(*given)

    monkeypatch.setattr("cycledistill.adaptive.exit.exit_costs", counting)
    adaptive = AdaptiveExit(wrapped(), (1, 2), threshold=math.inf)
    x, _ = toys.batch()
    with torch.no_grad():
        for _ in range(2):
            adaptive(x)
            before = adaptive.mean_cost()
        assert len(counted) == 1
        adaptive.model.head = torch.nn.Linear(toys.DIM, 40 * toys.CLASSES).double()
        adaptive(x)
        assert adaptive.mean_cost() > before and len(counted) == 2
