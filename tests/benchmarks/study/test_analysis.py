"""Intervals, corrections and verdicts against other code, and words that follow the numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("timm")
pytest.importorskip("sklearn")
pytest.importorskip("markdown_it")

from scipy import stats
from study.adaptive import read_curves
from study.analysis import differences, holm, interval, success
from study.errors import StudyError
from study.load import load_plan
from study.report import excerpt, fill, markdown, words

from tests.scripts import ROOT

Written = Callable[..., Path]


def record(arm: str, seed: int, value: float) -> dict[str, Any]:
    return {
        "arm": arm, "seed": seed, "steps": 4, "parameters": 10, "exit_macs": [1000, 2000, 3000],
        "training_macs": 12000, "seconds": 1.0, "diverged": False, "deployed_equal": True, "device": "a CPU",
        "metrics": {name: {"1": value, "2": value + 1, "3": value} for name in ("cells 4x4", "solved 5x5")},
    }  # fmt: skip


def test_the_interval_is_that_of_scipy() -> None:
    values = [1.0, 3.0, 2.5, 4.0]
    low, high, p = interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high))
    assert p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert interval([2.0, 2.0]) == (2.0, 2.0, 1.0)  # no spread to judge by: scores come in steps
    assert interval([0.0, 0.0]) == (0.0, 0.0, 1.0)


def test_holm_by_hand() -> None:
    # Sorted: .001 x 4, .01 x 3, .02 x 2, .5 x 1.
    assert holm([0.02, 0.001, 0.5, 0.01]) == pytest.approx([0.04, 0.004, 0.5, 0.03])
    assert holm([0.03, 0.02, 0.025]) == pytest.approx([0.06, 0.06, 0.06])  # never less than one before it
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("gains", "verdict", "says"),
    [
        ([5.0, 5.2, 4.9, 5.1], "yes", "Cycles help: **yes**. `exits@2` less `base@1`: +6.1 points"),
        ([-5.0, -5.2, -4.9, -5.1], "no", "Cycles help: **no**, the other is higher."),
        ([5.0, -5.2, 4.0, -3.0], "not told apart", "Cycles help: not told apart."),
    ],
)
def test_verdicts_are_made_from_the_numbers(written: Written, gains: list[float], verdict: str, says: str) -> None:
    plan = load_plan(written(seeds=[0, 1, 2, 3]))
    runs = [record("base", seed, 50.0) for seed in range(4)]
    runs += [record("exits", seed, 50.0 + gain) for seed, gain in enumerate(gains)]
    (found,) = differences(plan, runs)
    assert found.values == pytest.approx([gain + 1 for gain in gains])
    assert found.verdict == verdict
    assert says in words(found)
    assert says in markdown(plan, runs)


def test_only_seeds_of_both_sides_are_compared(written: Written) -> None:
    plan = load_plan(written(seeds=[0, 1, 2, 3]))
    runs = [record("base", seed, 50.0) for seed in (0, 1, 2)]
    runs += [record("exits", seed, 50.0 + seed) for seed in (3, 2, 1)]
    runs[-1]["diverged"] = True
    (found,) = differences(plan, runs)  # seed 2 alone is left, and seed 1 diverged
    assert (found.values, found.diverged, found.missing) == ((3.0,), (1,), (0, 3))
    assert (found.p, found.verdict) == (1.0, "not decided")
    assert "Cycles help: not decided, for a side diverged at seed 1; `exits@2` less `base@1`: 1 seeds" in words(found)
    runs[-1]["diverged"] = False
    (found,) = differences(plan, runs)
    assert found.values == pytest.approx([2.0, 3.0])
    assert found.verdict == "interim"
    text = markdown(plan, runs)
    assert "Not finished: 18 of 24 runs are missing; where one side lacks a seed nothing is decided." in text
    assert "Cycles help: interim. `exits@2` less `base@1`: +2.5 points" in text
    assert np.isclose(found.mean, 2.5)


def test_a_side_that_diverged_decides_nothing_and_still_counts(written: Written) -> None:
    """Leaving such a seed out would be a choice by result; leaving the comparison out would ease the correction."""
    two = [{"left": "exits@2", "right": "base@1", "claim": "a"}, {"left": "deep@1", "right": "base@1", "claim": "b"}]
    plan = load_plan(written(seeds=[0, 1, 2, 3], comparisons=two))
    runs = [record("base", seed, 50.0) for seed in range(4)]
    runs += [record("exits", seed, 55.0 + 0.1 * seed) for seed in range(4)]
    first, second = differences(plan, runs)
    assert first.corrected == pytest.approx(2 * first.p) and first.verdict == "yes"
    assert second.verdict == "interim" and second.missing == (0, 1, 2, 3)
    runs[0]["diverged"] = True
    first, _ = differences(plan, runs)
    assert len(first.values) == 3 and first.verdict == "not decided"
    assert "**yes**" not in words(first)


def test_a_run_whose_start_diverged_is_left_out_and_not_missing(written: Written) -> None:
    reasons = dict.fromkeys(("plain", "equal training", "deeper", "narrower", "narrower, equal training"), "short")
    tuned = {"cycles": 2, "start_from": "base", "without": reasons}
    compared = [{"left": "tuned@1", "right": "deep@1", "claim": "a", "decides": True}]
    plan = load_plan(written(seeds=[0, 1, 2], arms={"tuned": tuned}, comparisons=compared))
    runs = [record(arm, seed, 50.0) for arm in plan.arms for seed in plan.seeds]
    runs = [run for run in runs if (run["arm"], run["seed"]) != ("tuned", 0)]
    runs[0]["diverged"] = True
    (found,) = differences(plan, runs)
    assert (found.diverged, found.missing, found.verdict) == ((0,), (), "not decided")
    text = markdown(plan, runs)
    assert "Left out, for the run that they start from diverged: tuned of seed 0." in text
    assert "Not finished" not in text and "not decided, for runs are missing or diverged" in text


def test_what_was_added_is_corrected_for_all_and_burdens_nothing_that_was_asked_before(written: Written) -> None:
    asked = {"left": "exits@2", "right": "base@1", "claim": "a"}
    later = [{"left": "deep@1", "right": "base@1", "claim": str(n), "added": "why"} for n in range(2)]
    later[1]["left"] = "deep@2"
    plan = load_plan(written(seeds=[0, 1, 2, 3], comparisons=[asked, *later]))
    runs = [record("base", seed, 50.0) for seed in range(4)]
    runs += [record(arm, seed, 55.0 + 0.1 * seed) for arm in ("exits", "deep") for seed in range(4)]
    first, *others = differences(plan, runs)
    assert first.corrected == first.p
    assert [each.corrected for each in others] == pytest.approx([3 * first.p] * 2)  # three alike: Holm's first, for all
    assert f"4 of 4 seeds; p {others[0].corrected:.4f}. (Added" in words(others[0]) or others[0].corrected < 1e-4


def test_what_was_added_and_what_is_not_judged_is_said(written: Written) -> None:
    path = written(not_judged="that it is cheap.")
    path.write_text(path.read_text(encoding="utf-8").replace("cycles: 2", "added: a reader asked\n    cycles: 2"))
    plan = load_plan(path)
    runs = [record(arm, 0, 50.0) for arm in ("base", "exits")]
    assert "(added after the first runs: a reader asked)" in markdown(plan, runs)
    assert "(`exits`, added)" in excerpt(plan, runs) and "(`base`)" in excerpt(plan, runs)
    assert all(". Not judged: that it is cheap." in text for text in (markdown(plan, runs), excerpt(plan, runs)))


@pytest.mark.parametrize(
    ("gains", "decided_by", "reached"),
    [
        ((5.0, 5.0), "all", "reached"),
        ((5.0, -5.0), "all", "not reached"),
        ((5.0, -5.0), "any", "reached"),
        ((-5.0, -5.0), "any", "not reached"),
        ((-5.0, None), "all", "not reached"),
        ((5.0, None), "all", "not decided"),
        ((-5.0, None), "any", "not decided"),
        ((5.0, None), "any", "reached"),
    ],
    ids=str,
)
def test_success_is_judged_by_what_decides(
    written: Written, gains: tuple[float | None, ...], decided_by: str, reached: str
) -> None:
    compared = [
        {"left": f"{arm}@1", "right": "base@1", "claim": arm, "decides": arm != "narrow"}
        for arm in ("exits", "deep", "narrow")
    ]
    plan = load_plan(written(seeds=[0, 1, 2], comparisons=compared, decided_by=decided_by))
    runs = [record("base", seed, 50.0) for seed in range(3)]
    for arm, gain in zip(("exits", "deep"), gains, strict=True):
        runs += [record(arm, seed, 50.0 + gain + 0.1 * seed) for seed in range(3) if gain is not None]
    assert success(plan, differences(plan, runs)) == reached
    assert f"What was to count as a yes: {'**' if reached != 'not decided' else ''}{reached}" in markdown(plan, runs)


def test_a_study_whose_success_no_comparison_stands_for_is_not_judged(written: Written) -> None:
    plan = load_plan(written())
    assert success(plan, differences(plan, [record("base", 0, 1.0)])) == "not judged"


def test_seeds_that_are_not_in_the_plan_are_not_read(written: Written) -> None:
    plan = load_plan(written(seeds=[0, 1]))
    runs = [record(arm, seed, 50.0 + 9 * seed) for arm in ("base", "exits") for seed in (0, 1, 7)]
    (found,) = differences(plan, runs)
    assert len(found.values) == 2


RESULTS = ROOT / "benchmarks" / "results" / "study"


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.jsonl")), ids=lambda file: file.stem)
def test_committed_reports_are_those_of_the_committed_runs(file: Path, tmp_path: Path) -> None:
    from study.results import Results

    plan = load_plan(file.stem)
    runs = Results(plan, RESULTS, tmp_path).read()
    assert (RESULTS / f"{plan.name}.md").read_text(encoding="utf-8") == markdown(plan, runs)


def test_excerpts_go_into_their_places_alone() -> None:
    page = "a\n<!-- study one -->\nold\n<!-- end -->\nb\n<!-- study two -->\n<!-- end -->\n"
    filled = fill(page, {"one": r"new \1"})
    assert filled == "a\n<!-- study one -->\n\nnew \\1\n\n<!-- end -->\nb\n<!-- study two -->\n<!-- end -->\n"
    assert fill(filled, {"one": r"new \1"}) == filled
    with pytest.raises(StudyError, match="the page has 0 places for three"):
        fill(page, {"three": "x"})
    with pytest.raises(StudyError, match="the page has 0 places for one"):  # its own end is missing
        fill(page.replace("<!-- end -->\nb", "b"), {"one": "x"})


def test_the_guide_shows_what_the_committed_runs_say(tmp_path: Path) -> None:
    from study.results import Results

    page = (ROOT / "docs" / "when.md").read_text(encoding="utf-8")
    named = re.findall(r"<!-- study (\S+) -->", page)
    assert named
    for name in named:
        plan = load_plan(name)
        runs = Results(plan, RESULTS, tmp_path).read()
        anew = fill(page, {name: excerpt(plan, runs, read_curves(RESULTS, plan))})
        assert anew == page, f"python benchmarks/study report {name} --into docs/when.md"
