"""What an arm may vary does what the plan says of it, by loops written out here."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("timm")
pytest.importorskip("sklearn")
pytest.importorskip("markdown_it")

from study.costs import arm_costs
from study.errors import StudyError
from study.links import average_weights
from study.plan import load_plan
from study.schedules import cycles_at, later_weights
from study.tasks import open_task
from study.train import Run

from .test_run import run_of, without_times

Written = Callable[..., Path]


def arm_of(written: Written, tmp_path: Path, **settings: Any) -> Run:
    """An arm of two cycles with the settings, before its first step."""
    arm = {"cycles": 2, **settings, "without": {"equal training": "not asked", "narrower, equal training": "not asked"}}
    return run_of(written(arms={"exits": arm}), "exits", tmp_path / "work")


def test_cycles_of_each_schedule(written: Written) -> None:
    def at(schedule: str, **more: Any) -> list[int]:
        path = written(arms={"exits": {"cycles": 3, "distill": "exits", "schedule": schedule, **more}})
        arm = load_plan(path).arms["exits"]
        return [cycles_at(arm, step, 12, seed=0) for step in range(12)]

    reasons = dict.fromkeys(("equal training", "deeper", "narrower", "narrower, equal training"), "not asked")
    assert at("constant", without=reasons) == [3] * 12
    assert at("late", turn=0.75, without=reasons) == [1] * 9 + [3] * 3
    assert at("early", without=reasons) == [3] * 6 + [1] * 6
    assert at("growing", without=reasons) == [1] * 4 + [2] * 4 + [3] * 4
    drawn = at("random", without=reasons)
    assert set(drawn) == {1, 2, 3}
    assert drawn == at("random", without=reasons)


@pytest.mark.parametrize("link", ["input", "cut"])
def test_links_are_what_they_say(written: Written, tmp_path: Path, link: str) -> None:
    """The oracle: two passes by hand."""
    arms = {"exits": {"cycles": 2, "distill": "exits", "link": link}}
    run = run_of(written(arms=arms), "exits", tmp_path / "work")
    cells, target = run.task.batch(0, 0, 8)
    out = run.model.train()(cells)
    plain = run_of(written(), "base", tmp_path / "plain").model.eval()
    block, entry = plain.blocks[0], plain.embed(cells)
    first = block(entry)
    second = block(first + entry if link == "input" else first.detach())
    expected = torch.movedim(plain.head(plain.norm(second)), -1, 1)
    torch.testing.assert_close(out.outputs[1], expected)
    run.task.loss(out.outputs[1], *target).backward()
    run.task.loss(expected, *target).backward()
    torch.testing.assert_close(run.model.embed.weight.grad, plain.embed.weight.grad)


def test_an_adapter_stands_between_the_cycles_and_goes_with_them(written: Written, tmp_path: Path) -> None:
    run = arm_of(written, tmp_path, link="adapter")
    names = set(run.model.state_dict())
    adapter = run.beside["link"]
    cells, _ = run.task.batch(0, 0, 8)
    plain = run_of(written(), "base", tmp_path / "plain").model.eval()
    one = plain.blocks[0](plain.embed(cells))
    for filled in (False, True):  # it is nothing at first
        if filled:
            nn.init.normal_(adapter.up.weight)
        between = one + one @ adapter.down.weight.T @ adapter.up.weight.T
        assert torch.equal(between, one) is not filled
        out = run.model.train()(cells)
        torch.testing.assert_close(out.outputs[0], torch.movedim(plain.head(plain.norm(one)), -1, 1))
        expected = torch.movedim(plain.head(plain.norm(plain.blocks[0](between))), -1, 1)
        torch.testing.assert_close(out.outputs[1], expected)
    before = adapter.down.weight.clone()
    record = run.go(math.inf)
    assert record is not None and record["deployed_equal"]
    assert not torch.equal(adapter.down.weight, before)
    assert set(run.model.state_dict()) == names == set(plain.state_dict())


def test_the_first_cycle_learns_the_averages_last(written: Written, tmp_path: Path) -> None:
    """One step by hand: two passes, the average's two passes, and the average moved."""
    run = arm_of(written, tmp_path, distill="exits", average=0.5)
    plain = run_of(written(), "base", tmp_path / "plain")
    model, average = plain.model, copy.deepcopy(plain.model)
    nn.init.normal_(run.average.head.weight)
    average.head.weight.data.copy_(run.average.head.weight)

    def passes(network: Any, cells: torch.Tensor) -> list[torch.Tensor]:
        one = network.blocks[0](network.embed(cells))
        return [torch.movedim(network.head(network.norm(x)), -1, 1) for x in (one, network.blocks[0](one))]

    cells, target = run.task.batch(0, 0, 8)
    one, two = passes(model, cells)
    with torch.no_grad():
        taught = passes(average, cells)[1]
    wanted, told = (taught / 2).softmax(1), (one / 2).log_softmax(1)
    taught_loss = 4 * (wanted * (wanted.log() - told)).sum(1).mean()
    (run.task.loss(one, *target) + run.task.loss(two, *target) + taught_loss).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)

    assert run.go(-math.inf) is None  # stops after a step
    assert run.looks["taught"][0] == pytest.approx(taught_loss.item(), rel=1e-5)
    torch.testing.assert_close(run.model.head.weight.grad, model.head.weight.grad)
    torch.testing.assert_close(run.average.head.weight, 0.5 * average.head.weight + 0.5 * run.model.head.weight)
    again = run_of(written(arms={"exits": run_settings(average=0.5)}), "exits", tmp_path / "work")
    assert torch.equal(again.average.head.weight, run.average.head.weight)


def run_settings(**settings: Any) -> dict[str, Any]:
    reasons = {"equal training": "not asked", "narrower, equal training": "not asked"}
    return {"cycles": 2, "distill": "exits", **settings, "without": reasons}


@pytest.mark.parametrize("settings", [{"average": 0.9}, {"link": "adapter"}], ids=str)
def test_what_goes_beside_the_model_is_there_after_a_stop(
    written: Written, tmp_path: Path, settings: dict[str, Any]
) -> None:
    path = written(arms={"exits": run_settings(**settings)})
    whole = run_of(path, "exits", tmp_path / "a").go(math.inf)
    assert run_of(path, "exits", tmp_path / "b").go(-math.inf) is None
    assert without_times(run_of(path, "exits", tmp_path / "b").go(math.inf)) == without_times(whole)


def test_a_teacher_is_paid_for(written: Written) -> None:
    plan = load_plan(written(arms={"exits": run_settings(average=0.9)}))
    costs = arm_costs(plan, open_task(plan.task, None, torch.device("cpu")))
    plain = load_plan(written())
    without = arm_costs(plain, open_task(plain.task, None, torch.device("cpu")))["exits"]
    assert costs["exits"].training == without.training + 4 * without.exits[1]


def test_the_second_cycles_weight_grows(written: Written, tmp_path: Path) -> None:
    run = arm_of(written, tmp_path, later_weight="growing")
    weights = [later_weights(run.arm, step, 20) for step in range(20)]
    assert weights[0] == weights[1] == (1.0, 0.0) and weights[-1] == (1.0, 1.0)
    assert [two for _, two in weights] == sorted(two for _, two in weights)  # type: ignore[misc]
    assert len(set(weights)) == 10
    record = run.go(math.inf)
    assert record is not None
    assert [run.looks["step"], len(run.looks["task_2"])] == [[0, 1, 2, 3], 4]
    assert run.looks["task_2"][0] is None  # a cycle of weight 0 has no task loss
    assert run.looks["task_1"][0] == pytest.approx(run.looks["loss"][0])
    assert run.looks["task_2"][3] == pytest.approx(run.looks["loss"][3] - run.looks["task_1"][3], rel=1e-4)


def test_an_average_follows_weights() -> None:
    average, model = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    model.weight.data.fill_(3.0)
    model.num_batches_tracked.fill_(7)
    average_weights(average, model, 0.75)
    assert average.weight.tolist() == [1.5, 1.5]
    assert average.num_batches_tracked.item() == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"average": 1.0}, r"arms\.exits\.average 1\.0: a decay is at least 0 and below 1"),
        ({"later_weight": "growing"}, r"arms\.exits: later_weight: growing sets the task weights"),
        ({"later_weight": "shrinking"}, "shrinking"),
        ({"link": "rope"}, "rope"),
    ],
    ids=str,
)
def test_bad_variants(written: Written, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        load_plan(written(arms={"exits": run_settings(**settings)}))
