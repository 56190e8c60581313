"""Plans are read strictly, and every arm with cycles has its baselines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("timm")
pytest.importorskip("sklearn")
pytest.importorskip("markdown_it")

from study.errors import StudyError
from study.load import PLANS, load_plan

Written = Callable[..., Path]


@pytest.mark.parametrize("name", sorted(each.stem for each in PLANS.glob("*.yaml")))
def test_registered_plans_are_valid_and_called_as_their_files(name: str) -> None:
    assert load_plan(name).name == name


def test_baselines_are_known_by_what_they_keep_equal(written: Written) -> None:
    plan = load_plan(written())
    assert plan.baselines("exits") == {
        "plain": "base", "equal training": "base_eq", "deeper": "deep", "narrower": "narrow",
        "narrower, equal training": "narrow_eq",
    }  # fmt: skip
    other = {"faster": {"rate": 2.0}, "shallow": {"steps": 0.5}, "dropped": {"drop_path": 0.1}}
    assert load_plan(written(arms=other)).baselines("exits") == plan.baselines("exits")


@pytest.mark.parametrize("arm", ["base", "base_eq", "deep", "narrow", "narrow_eq"])
def test_an_arm_without_a_baseline_is_refused_unless_it_says_why(written: Written, arm: str) -> None:
    kinds = {"base": "plain", "base_eq": "equal training", "deep": "deeper", "narrow": "narrower"}
    kind = {**kinds, "narrow_eq": "narrower, equal training"}[arm]
    path = written(comparisons=[{"left": "exits@2", "right": "exits@1", "claim": "x"}])
    plan = yaml.safe_load(path.read_text(encoding="utf-8"))
    arms = plan["arms"] = {name: fields for name, fields in plan["arms"].items() if name != arm}
    path.write_text(yaml.safe_dump(plan), encoding="utf-8")
    with pytest.raises(StudyError, match=f"no baseline for {kind}; add an arm, or say why not under `without`"):
        load_plan(path)
    plan["arms"] = {**arms, "exits": {**arms["exits"], "without": {kind: "not asked here"}}}
    path.write_text(yaml.safe_dump(plan), encoding="utf-8")
    assert kind not in load_plan(path).baselines("exits")


def test_more_cycles_need_more_blocks_beside_them(written: Written) -> None:
    arms = {"more": {"cycles": 3, "distill": "exits"}}
    with pytest.raises(StudyError, match="arms.more: no baseline for deeper, narrower, narrower, equal training"):
        load_plan(written(arms=arms))


def test_an_arm_of_its_own_number_of_steps_has_no_plain_baseline(written: Written) -> None:
    arms = {"big": {"cycles": 2, "steps": 4, "distill": "exits"}}
    with pytest.raises(StudyError, match="arms.big: no baseline for plain, deeper, narrower; add"):
        load_plan(written(arms=arms))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"sees": [1]}, r"tiny\.yaml: unknown key 'sees'\. Did you mean 'seeds'\?"),
        ({"arms": {"odd": {"cycels": 2}}}, r"unknown key 'arms\.odd\.cycels'\. Did you mean 'arms\.odd\.cycles'\?"),
        ({"arms": {"odd": {"cycles": "two"}}}, r"arms\.odd\.cycles: got 'two' \(str\), expected a whole number"),
        ({"arms": {"odd": None}}, r"arms\.odd: a mapping of keys to values is expected, not nothing"),
        (
            {"arms": {"odd": {"distill": {"temprature": 2}}}},
            r"unknown key 'arms\.odd\.distill\.temprature'\. Did you mean 'temperature'\?",
        ),
        ({"arms": {"odd": {"distill": {"select": "x"}}}}, r"unknown key 'arms\.odd\.distill\.select'"),
        ({"training": {"steps": 4}}, r"tiny\.yaml: training: batch, rate are missing"),
        ({"network": None}, r"network: a mapping of keys to values is expected, not nothing"),
        ({"task": {"test_boards": 0}}, r"tiny\.yaml: task\.test_boards: got 0, a whole number from 1 is expected"),
        ({"comparisons": None}, r"comparisons: a list, a mapping for each, is expected, not nothing"),
        ({"comparisons": ["exits@2"]}, r"comparisons\[0\]: a mapping of keys to values is expected, not str"),
        ({"comparisons": [{"left": "exits@2", "right": "base@1"}]}, r"comparisons\[0\]: claim is missing"),
        (
            {"comparisons": [{"left": "exits@2", "right": "base@1", "claim": "x", "decide": True}]},
            r"unknown key 'comparisons\[0\]\.decide'",
        ),
        ({"arms": {"odd": 3}}, r"arms\.odd: a mapping of keys to values is expected, not int"),
        ({"arms": {"odd": {"equal_training": "nothing"}}}, r"equal_training: 'nothing' is no other arm"),
        ({"arms": {"odd": {"distill": {"temperature": -1}}}}, r"arms\.odd\.distill: .*temperature=-1"),
        ({"arms": {"odd": {"distill": "sdposs"}}}, r"arms\.odd\.distill: .*unknown preset"),
        ({"arms": {"odd": {"without": {"deepest": "x"}}}}, r"'deepest' is no baseline"),
        ({"arms": {"odd": {"turn": 2}}}, r"shares of the steps"),
        ({"arms": {"odd": {"steps": 0}}}, r"steps and rate are above 0"),
        ({"arms": {"odd": {"steps": 2, "equal_training": "deep"}}}, r"its steps follow from equal_training"),
        (
            {"arms": {"odd": {"cycles": 2, "schedule": "late", "distill": {"task_weights": [1, 2]}}}},
            r"a weight a cycle",
        ),
        ({"seeds": [0, 0]}, r"each is expected once"),
        ({"seeds": []}, r"must each have an entry"),
        ({"exits": [0, 1]}, r"exits count from 1"),
        ({"seeds": "all"}, r"seeds: got 'all'"),
        ({"comparisons": [{"left": "exits@9", "right": "base@1", "claim": "x"}]}, r"comparison of exits@9: arms are"),
        ({"comparisons": [{"left": "exits", "right": "base@1", "claim": "x"}]}, r"'exits': an arm and a number"),
        ({"comparisons": [{"left": "exits@1", "right": "base@1", "claim": "x", "metric": "y"}]}, r"of 'y'"),
        ({"exits": [1, 1]}, r"exits \[1, 1\]: each is expected once"),
        ({"training": {"steps": 0, "batch": 8, "rate": 1e-2}}, r"steps, batch and rate are numbers above 0"),
        ({"arms": {"odd": {"heads": 3}}}, r"arms\.odd: .* heads divide the width"),
        ({"comparisons": [{"left": "exits@1", "right": "exits@1", "claim": "x"}]}, r"two sides and a claim"),
        ({"name": "a/b"}, r"letters, digits and dashes"),
        ({"exits": [2, 1]}, r"exits \[2, 1\]: ascending"),
        ({"comparisons": []}, r"one at least is expected"),
        (
            {"training": {"steps": 4, "batch": 8, "rate": float("nan")}},
            r"rate=nan: a finite number is expected",
        ),
        (
            {"training": {"steps": 4, "batch": 8, "rate": float("inf")}},
            r"rate=inf: a finite number is expected",
        ),
        ({"training": {"steps": 4, "batch": 8, "rate": 1e-2, "warmup": 5}}, r"warmup is a share"),
        ({"training": {"steps": 4, "batch": 8, "rate": 1e-2, "clip": -1}}, r"clip and weight_decay are 0 or more"),
        ({"arms": {"a/b": {}}}, r"arms\.a/b: a letter"),
        ({"arms": {"odd": {"drop_path": 2}}}, r"drop_path 2"),
        ({"arms": {"odd": {"link": "cut"}}}, r"of further cycles, and it runs one"),
        ({"arms": {"odd": {"average": 0.9}}}, r"of further cycles, and it runs one"),
        ({"arms": {"odd": {"without": {"deeper": ""}}}}, r"why there is no 'deeper' is expected"),
        ({"arms": {"one": {"start_from": "two"}, "two": {"start_from": "one"}}}, r"in a circle: one -> two -> one"),
    ],
)
def test_what_cannot_be_gone_by_is_named(
    written: Written, sections: dict[str, Any], message: str, tmp_path: Path
) -> None:
    name = sections.pop("name", "tiny")
    path = written(**sections)
    if name != "tiny":
        path.write_text(path.read_text(encoding="utf-8").replace("name: tiny", f"name: {name}"), encoding="utf-8")
    with pytest.raises(StudyError, match=message):
        load_plan(path)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"drop_path": 0.1}, r"drop_path 0\.1, where exits has 0\.0"),
        ({"rate": 2.0, "steps": 3.0}, r"steps 3\.0, where exits has 1\.0 and rate 2\.0, where exits has 1\.0"),
    ],
    ids=str,
)
def test_what_keeps_an_arm_from_being_a_baseline_is_named(written: Written, setting: dict[str, Any], says: str) -> None:
    with pytest.raises(
        StudyError, match=rf"arms\.exits: no baseline for plain; .* base would be the one for plain, but has {says}$"
    ):
        load_plan(written(arms={"base": setting}))


def test_a_plan_without_a_key_is_told_which(written: Written) -> None:
    path = written()
    plan = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({key: plan[key] for key in plan if key not in ("seeds", "task")}), encoding="utf-8")
    with pytest.raises(StudyError, match=r"tiny\.yaml: the file: task, seeds are missing"):
        load_plan(path)


def test_a_file_that_is_not_there_or_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"nothing: neither a file nor a registered study \(.*mazes"):
        load_plan("nothing")
    (tmp_path / "bad.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(StudyError, match=r"bad\.yaml is not plain YAML .*: line 1"):
        load_plan(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- a", encoding="utf-8")
    with pytest.raises(StudyError, match="the file: a mapping of keys to values is expected, not list"):
        load_plan(tmp_path / "list.yaml")


def test_digests_are_of_what_matters(written: Written) -> None:
    plan = load_plan(written())
    assert load_plan(written(seeds=[5, 6, 7])).digest == plan.digest
    assert load_plan(written(success="Something else.")).digest != plan.digest
    # An arm that is added changes no other's; a setting changes all; one arm's setting, its own and what hangs on it.
    added = load_plan(written(arms={"new": {"rate": 0.5}}))
    assert added.digest != plan.digest
    assert [added.content_of(arm) for arm in plan.arms] == [plan.content_of(arm) for arm in plan.arms]
    other = load_plan(written(training={"steps": 5, "batch": 8, "rate": 1e-2}))
    assert not any(other.content_of(arm) == plan.content_of(arm) for arm in plan.arms)
    other = load_plan(written(arms={"exits": {"cycles": 2, "distill": "mct", "says": "x"}}))
    changed = [arm for arm in plan.arms if other.content_of(arm) != plan.content_of(arm)]
    assert changed == ["exits", "base_eq", "narrow_eq"]
    # What is said at its default is not said: a key that is added to plans changes none of them.
    same = load_plan(written(arms={"deep": {"depth": 2, "steps": 1.0, "schedule": "constant"}}))
    assert (same.digest, same.content_of("deep")) == (plan.digest, plan.content_of("deep"))
