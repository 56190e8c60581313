"""A trained arm whose samples stop where they are sure: accuracy against mean cost, beside the fixed exits."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common import write
from torch import Tensor

from cycledistill import wrap_cyclic
from cycledistill.adaptive import AdaptiveExit, Curve
from cycledistill.recipes.reading.texts import read_json

from .analysis import interval
from .curve_records import wrong_in
from .errors import StudyError
from .plan import Plan
from .results import Record
from .tasks.task import Inputs, Task
from .train import trained_weights

_logger = logging.getLogger(__name__)
SHARE = 0.6
"""Of the last exit's cost: what the samples may cost on average."""
_POINTS = 21
_KINDS = {
    "adaptive": "each where it is sure",
    "by_metric": "the same, thresholds chosen by the labels of the other half",
}


def measure(plan: Plan, task: Task, arm: str, weights: Path, exits: Sequence[int]) -> Record:
    """The curve of one arm from one seed.

    Thresholds are chosen on one half of every batch of the test data, without its labels and by them; the metric is
    read on the other.

    Args:
        plan: The study.
        task: Its data.
        arm: Which.
        weights: Of that arm and a seed, as a run left them.
        exits: The cycles that samples may leave after.

    Returns:
        ``fixed``, exit -> cost and percent; pairs of cost and percent of thresholds: ``adaptive`` without labels,
        ``by_metric`` with them. Costs are multiples of one cycle.
    """
    model: Any = task.network(plan.network_of(arm))
    model.load_state_dict(trained_weights(plan, arm, weights))
    model = wrap_cyclic(model, 1, None, blocks=task.blocks).eval()
    measure_name, _, test_set = plan.metrics[0].partition(" ")
    held_out, read = _halves(task, test_set)
    adaptive = AdaptiveExit(model, tuple(exits), task.confidence)

    def right(output: Any, target: Inputs) -> Tensor:
        return task.right(output, *target)[measure_name]

    without, by_metric = (
        adaptive.curve(read, right, points=_POINTS, held_out=held_out, by_metric=each) for each in (False, True)
    )
    return {"arm": arm, "exits": list(exits), **_numbers(without), "by_metric": _numbers(by_metric)["adaptive"]}


def _halves(task: Task, test_set: str) -> tuple[list[tuple[Tensor, Inputs]], list[tuple[Tensor, Inputs]]]:
    """The batches of a test set that thresholds are chosen on, and those that are read: half of each batch."""
    held_out, read = [], []
    for given, target in _batches(task, test_set):
        half = len(given) // 2
        held_out.append((given[:half], tuple(each[:half] for each in target)))
        read.append((given[half:], tuple(each[half:] for each in target)))
    if not any(len(given) for given, _ in held_out):
        raise StudyError(f"{test_set or 'the test data'}: two samples at least are expected, one half to choose by")
    return held_out, read


def _batches(task: Task, test_set: str) -> Iterator[tuple[Tensor, Inputs]]:
    return ((given, target) for name, given, target in task.test() if name == test_set)


def _numbers(curve: Curve) -> Record:
    rows = [(row.fixed, round(row.cost, 4), round(100 * row.accuracy, 3)) for row in curve.rows]
    return {
        "fixed": {str(fixed): [cost, found] for fixed, cost, found in rows if fixed is not None},
        "adaptive": [[cost, found] for fixed, cost, found in rows if fixed is None],
    }


def at_share(record: Record, kind: str = "adaptive", share: float = SHARE) -> tuple[float, float]:
    """Cost and percent of the thresholds of the largest budget whose cost is within a share of the last exit's."""
    limit = share * record["fixed"][str(record["exits"][-1])][0]
    within = [(cost, found) for cost, found in record[kind] if cost <= limit]  # in the order of their budgets
    if not within:
        raise StudyError(f"no thresholds cost at most {share:.0%} of the last exit: the cheapest is {record[kind][0]}")
    return float(within[-1][0]), float(within[-1][1])


def write_curves(folder: Path, plan: Plan, curves: Sequence[Record]) -> None:
    """Keep the curves of an arm, beside its study's runs; those of other arms stay, its own from before do not."""
    before = read_file(folder, plan)
    gone = {curve["arm"] for curve in curves} | set(_stale(plan, before))
    for arm, exits in {each["arm"]: each["exits"] for each in before["curves"] if each["arm"] in gone}.items():
        _logger.warning("%s: earlier curves of %s, of exits %s, are removed from its file", plan.name, arm, exits)
    kept = [*(each for each in before["curves"] if each["arm"] not in gone), *curves]
    place = list(plan.arms).index
    kept.sort(key=lambda each: place(each["arm"]))  # whichever was measured first
    contents = {curve["arm"]: plan.content_of(curve["arm"]) for curve in kept}
    write(_file(folder, plan), {"contents": contents, "curves": kept})


def read_curves(folder: Path, plan: Plan) -> list[Record]:
    """The curves that are kept of a study; none where none were measured.

    Raises:
        StudyError: They are of a study of this name with other content.
    """
    record = read_file(folder, plan)
    if stale := _stale(plan, record):
        raise StudyError(
            f"{_file(folder, plan)} is of a study of other content ({', '.join(stale)}): measure it anew, python "
            f"benchmarks/study adaptive {plan.name}"
        )
    curves: list[Record] = record["curves"]
    return curves


def read_file(folder: Path, plan: Plan) -> Record:
    """What the file of a study's curves holds, of whatever content they are; nothing where there is none.

    Raises:
        StudyError: It is broken.
    """
    file = _file(folder, plan)
    if not file.is_file():
        return {"contents": {}, "curves": []}
    record: Any = read_json(file, StudyError)
    if wrong := wrong_in(record):
        raise StudyError(f"{file} holds no curves of a study ({wrong}): remove it, and measure them anew")
    return dict(record)


def _stale(plan: Plan, record: Record) -> list[str]:
    """Arms whose curves were measured with other content than the plan's."""
    contents: dict[str, str] = record["contents"]
    return [arm for arm, content in contents.items() if arm not in plan.arms or plan.content_of(arm) != content]


def _file(folder: Path, plan: Plan) -> Path:
    return folder / f"{plan.name}-adaptive.json"


def mixed(record: Record, cost: float) -> float:
    """Percent at a mean cost where samples go to exits by chance: the best mixture of two fixed exits."""
    points = list(record["fixed"].values())
    best = [found for own, found in points if own <= cost]
    for low, at_low in points:
        for high, at_high in points:
            if low < cost < high:
                best.append(at_low + (at_high - at_low) * (cost - low) / (high - low))
    return max(best)


def table(plan: Plan, records: Sequence[Record]) -> str:
    """Means over seeds: each fixed exit, thresholds within `SHARE` of the last one's cost, and chance at that cost.

    A table for each arm.
    """
    arms = dict.fromkeys(record["arm"] for record in records)
    return "\n\n".join(_table_of(plan, [record for record in records if record["arm"] == arm]) for arm in arms)


def _table_of(plan: Plan, records: Sequence[Record]) -> str:
    first = records[0]
    head = f"{plan.metrics[0]}, %, on one half of the test data, {len(records)} seeds"
    rows = [f"| `{first['arm']}` | mean cost | {head} |", "|---|---|---|"]
    for exit in map(str, first["exits"]):
        costs, found = zip(*(record["fixed"][exit] for record in records), strict=True)
        rows.append(f"| all at exit {exit} | {statistics.fmean(costs):.2f} | {_spread(found)} |")
    for kind, says in _KINDS.items():
        if all(kind in record for record in records):
            costs, found = zip(*(at_share(record, kind) for record in records), strict=True)
            rows.append(f"| {says} | {statistics.fmean(costs):.2f} | {_spread(found)} |")
            drawn = [mixed(record, cost) for record, cost in zip(records, costs, strict=True)]
            gained = [own - other for own, other in zip(found, drawn, strict=True)]
            rows.append(f"| exits drawn by chance, for as much | {statistics.fmean(costs):.2f} | {_spread(drawn)} |")
            rows.append(f"| what thresholds gain over chance (95 % interval) | | {_gain(gained)} |")
    return "\n".join(rows)


def _gain(values: Sequence[float]) -> str:
    """Not corrected: no plan asks for it."""
    shown = f"{statistics.fmean(values):+.1f}"
    if len(values) > 1:
        low, high, _ = interval(values)
        shown += f" ({low:+.1f} to {high:+.1f})"
    return shown


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")
