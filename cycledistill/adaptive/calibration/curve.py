"""Accuracy against mean cost: a sweep of budgets, beside the fixed exits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from cycledistill.adaptive.calibration.by_metric import choose_thresholds
from cycledistill.adaptive.calibration.by_shares import places_of
from cycledistill.adaptive.calibration.data import Collected


@dataclass(frozen=True)
class Point:
    """One row of a `Curve`: a fixed exit, or thresholds.

    Attributes:
        fixed: The exit of all samples, or ``None`` for thresholds.
        threshold: One for each exit but the last; empty for a fixed exit.
        cost: Mean cost of a sample as a multiple of the whole model at one cycle, on the data that was measured.
        macs: The same in multiply-accumulates.
        accuracy: Mean of the metric.
        shares: Of the samples, at each exit.
    """

    fixed: int | None
    threshold: tuple[float, ...]
    cost: float
    macs: float
    accuracy: float
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Curve:
    """Accuracy against mean cost: the fixed exits, then thresholds in the order of their budgets.

    A fixed exit costs one tail; thresholds pay one at each exit that a sample reaches.
    """

    exits: tuple[int, ...]
    rows: tuple[Point, ...]
    samples: int

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers, ready for `json.dumps`."""
        return asdict(self)

    def __str__(self) -> str:
        shares = "".join(f"{f'at {each}':>8}" for each in self.exits)
        lines = [f"{'':<12}{'cost':>8}{'GMACs':>10}{'accuracy':>10}{shares}   thresholds"]
        for row in self.rows:
            name = "adaptive" if row.fixed is None else f"exit {row.fixed}"
            percent = "".join(f"{100 * share:>7.1f}%" for share in row.shares)
            threshold = ", ".join(f"{each:.4f}" for each in row.threshold)
            numbers = f"{row.cost:>8.3f}{row.macs / 1e9:>10.4g}{row.accuracy:>10.4f}"
            lines.append(f"{name:<12}{numbers}{percent}   {threshold}".rstrip())
        return "\n".join([*lines, f"{self.samples} samples; cost is a multiple of the whole model at one cycle"])


def sweep(chosen_on: Collected, measured: Collected, exits: tuple[int, ...], points: int) -> Curve:
    """The curve of ``measured``, with thresholds for ``points`` budgets chosen on other data.

    Raises:
        ValueError: ``points`` is no whole number of at least 2.
    """
    if type(points) is not int or points < 2:
        raise ValueError(f"points={points!r}: a whole number of at least 2 is expected")
    rows = [_fixed(measured, exits, place) for place in range(len(exits))]
    budgets = _budgets(chosen_on, points) if len(exits) > 1 else ()
    for budget in budgets:
        found = choose_thresholds(chosen_on, budget, exits)
        rows.append(_measure(measured, found.threshold, len(exits)))
    return Curve(exits, tuple(rows), len(measured.confidences))


def _budgets(data: Collected, points: int) -> Iterable[float]:
    """Costs from that of all leaving as early as they can to that of none leaving, evenly spaced."""
    relative = torch.tensor(data.costs.relative, dtype=torch.float64)
    earliest = places_of(data.confidences, (-float("inf"),) * data.confidences.shape[1])
    low, high = float(relative[earliest].mean()), float(relative[-1])
    return [low + (high - low) * number / (points - 1) for number in range(points)]


def _measure(data: Collected, threshold: tuple[float, ...], number: int) -> Point:
    assert data.scores is not None
    places = places_of(data.confidences, threshold)
    macs = float(torch.tensor(data.costs.macs, dtype=torch.float64)[places].mean())
    accuracy = float(data.scores.gather(1, places.unsqueeze(1)).mean())
    shares = torch.bincount(places, minlength=number).double() / len(places)
    return Point(None, threshold, macs / data.costs.plain, macs, accuracy, tuple(shares.tolist()))


def _fixed(data: Collected, exits: tuple[int, ...], place: int) -> Point:
    assert data.scores is not None
    macs = data.costs.fixed[place]
    shares = tuple(float(each == place) for each in range(len(exits)))
    return Point(exits[place], (), macs / data.costs.plain, macs, float(data.scores[:, place].mean()), shares)
