"""Results of a study: one file for several processes, whose lines are records of that study and no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("timm")
pytest.importorskip("sklearn")
pytest.importorskip("markdown_it")

from study.command import main
from study.errors import StudyError
from study.load import load_plan
from study.plan import Plan
from study.results import Results

Written = Callable[..., Path]


def test_a_torn_last_line_is_cut_off_and_said(
    written: Written, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = load_plan(written())
    results = Results(plan, tmp_path, tmp_path / "work")
    record = made_of(plan)
    results.add(record)
    whole = results.path.read_text(encoding="utf-8")
    results.path.write_text(whole + '{"plan": "', encoding="utf-8")
    assert results.read() == [record]
    assert (
        results.path.read_text(encoding="utf-8") == whole + '{"plan": "'
    )  # another may be writing it: readers leave it
    second = {**record, "seed": 1}
    results.add(second)
    assert "its last line was torn (10 letters) and is cut off" in caplog.text
    assert results.read() == [record, second]
    results.path.write_text(whole.rstrip("\n"), encoding="utf-8")  # only the end of the line is missing
    results.add(second)
    assert results.read() == [record, second]


def made_of(plan: Plan, **fields: Any) -> dict[str, Any]:
    """A record of the first arm, as it is written."""
    metrics = {metric: {str(exit): 1.0 for exit in plan.exits} for metric in plan.metrics}
    return {
        "plan": "x", "content": plan.content_of("base"), "arm": "base", "seed": 0, "steps": 4, "parameters": 9,
        "exit_macs": [1], "training_macs": 1, "seconds": 1.0, "diverged": False, "deployed_equal": True,
        "metrics": metrics, "device": "a CPU", **fields,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[]", "no record of a run"),
        ("{}", "without arm, content, deployed_equal, device"),
        ({"diverged": None, "metrics": None}, "no record of a run"),
        ({"metrics": {}}, "nothing read of cells 4x4 at 1"),
        ({"metrics": {"cells 4x4": {"1": 1.0, "2": 1.0, "3": 1.0}}}, "nothing read of solved 5x5 at 1"),
    ],
    ids=str,
)
def test_lines_that_are_no_records_are_named(written: Written, tmp_path: Path, line: Any, message: str) -> None:
    plan = load_plan(written())
    results = Results(plan, tmp_path, tmp_path / "work")
    text = line if isinstance(line, str) else json.dumps(made_of(plan, **line))
    results.path.write_text(f"{text}\n", encoding="utf-8")
    with pytest.raises(StudyError, match=rf"tiny\.jsonl, line 1: .*{message}"):
        results.read()


def test_results_of_another_content_are_refused(written: Written, tmp_path: Path) -> None:
    plan = load_plan(written())
    record = made_of(plan, content="other")
    for number, made in enumerate((record, {**record, "arm": "gone"})):
        Results(plan, tmp_path / str(number), tmp_path / "work").add(made)
        with pytest.raises(StudyError, match=f"also called tiny and has other content .arm {made['arm']}"):
            Results(plan, tmp_path / str(number), tmp_path / "work").read()


def test_two_studies_of_one_name_are_refused(written: Written, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    first = written()
    second = first.with_name("second.yaml")
    second.write_text(first.read_text(encoding="utf-8").replace("It does.", "It must."), encoding="utf-8")
    assert main(["status", str(first), str(second), "--results", str(tmp_path)]) == 2
    assert "two studies are called tiny and have other content" in capsys.readouterr().err


def test_a_run_is_done_by_one_process_and_kept_once(
    written: Written, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = load_plan(written())
    one, two = (Results(plan, tmp_path, tmp_path / "work") for _ in range(2))
    with one.claim("base", 0) as mine, two.claim("base", 0) as theirs, two.claim("base", 1) as other:
        assert (mine, theirs, other) == (True, False, True)
    with two.claim("base", 0) as theirs:
        assert theirs
    record = made_of(plan)
    one.add(record)
    two.add(record)
    assert len(one.read()) == 1
    assert "was there already" in caplog.text
