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
NAN = float("nan")


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
        "exit_macs": [1, 2, 3], "training_macs": 1, "seconds": 1.0, "diverged": False, "deployed_equal": True,
        "metrics": metrics, "device": "a CPU", **fields,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[]", "no record of a run"),
        ("{}", "without arm, content, deployed_equal, device"),
        ("12", "a mapping is expected, not 12"),
        ('{"arm": ', "no record of a run"),
        ("[" * 20_000, "no record of a run"),
        (b'{"arm": "\xff"}', "no record of a run: cannot be read as JSON"),
        ("", "no record of a run"),
        ({"diverged": None, "metrics": None}, "diverged: got None, true or false is expected"),
        ({"arm": ["base"]}, r"arm: got \['base'\], text is expected"),
        ({"seed": "0"}, "seed: got '0', a whole number is expected"),
        ({"seconds": NAN}, "seconds: got nan, a number from 0 is expected"),
        ({"training_macs": 0}, "training_macs: got 0, a number above 0 is expected"),
        ({"exit_macs": [1, None, 3]}, r"exit_macs: got \[1, None, 3\], a list of numbers above 0"),
        ({"exit_macs": [1, 2]}, r"exit_macs: 2 numbers, and the exits are \[1, 2, 3\]"),
        ({"deployed_equal": "yes"}, "deployed_equal: got 'yes', true, false or null is expected"),
        ({"metrics": None}, "metrics: got None, a mapping is expected"),
        ({"metrics": {"cells 4x4": None}}, "cells 4x4: got None, a number for each exit is expected"),
        *(
            ({"metrics": {"cells 4x4": {"1": 1.0, "2": value, "3": 1.0}}}, "cells 4x4 at 2: got .*, a finite number")
            for value in (NAN, "1.0", None, True, [1.0], 10**400)
        ),
        ({"metrics": {}}, "nothing read of cells 4x4 at 1"),
        ({"metrics": {"cells 4x4": {"1": 1.0, "2": 1.0, "3": 1.0}}}, "nothing read of solved 5x5 at 1"),
    ],
    ids=lambda given: str(given)[:40],
)
def test_lines_that_are_no_records_are_named(written: Written, tmp_path: Path, line: Any, message: str) -> None:
    plan = load_plan(written())
    results = Results(plan, tmp_path, tmp_path / "work")
    text = json.dumps(made_of(plan, **line)) if isinstance(line, dict) else line
    results.path.write_bytes((text if isinstance(text, bytes) else text.encode()) + b"\n")
    with pytest.raises(StudyError, match=rf"tiny\.jsonl, line 1: .*{message}"):
        results.read()


def test_a_run_that_stands_twice_counts_once(
    written: Written, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = load_plan(written())
    results = Results(plan, tmp_path, tmp_path / "work")
    record = made_of(plan)
    other = made_of(plan, seed=1)
    lines = [json.dumps(each) + "\n" for each in (record, other, dict(reversed(record.items())))]
    results.path.write_text("".join(lines), encoding="utf-8")
    assert results.read() == results.read() == [record, other]
    assert [each.getMessage() for each in caplog.records] == [
        f"{results.path}, line 3 is line 1 again (base, seed 0): it counts once"
    ]
    lines[2] = json.dumps({**record, "seconds": 2.0}) + "\n"
    results.path.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(StudyError, match=r"tiny\.jsonl, lines 1 and 3 are both of base, seed 0, and differ: one line"):
        results.read()


@pytest.mark.parametrize("torn", [b'{"plan": "', b"\xc3", b"\0" * 9], ids=["half a record", "half a letter", "zeros"])
def test_a_torn_last_line_is_told_and_cut_off_by_a_run_of_nothing(
    written: Written,
    tmp_path: Path,
    torn: bytes,
    capsys: pytest.CaptureFixture,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("study.command.write_report", lambda plan, *_: f"{plan.name}.md")  # which takes a second
    path = str(written(seeds=[0]))
    plan = load_plan(path)
    results = Results(plan, tmp_path, tmp_path / "work")
    for arm in plan.arms:
        results.add(made_of(plan, arm=arm, content=plan.content_of(arm)))
    whole = results.path.read_bytes()
    assert results.unended() == 0
    results.path.write_bytes(whole + torn)
    said = f"tiny.jsonl: its last line ({len(torn)} letters) has no end and is not counted; `run` cuts it off"
    for command in ("status", "report"):
        assert main([command, path, "--results", str(tmp_path)]) == 0
        assert capsys.readouterr().out.count(said) == 1
        assert results.path.read_bytes() == whole + torn
    caplog.set_level("INFO")
    assert main(["run", path, "--results", str(tmp_path), "--device", "cpu"]) == 0
    assert results.path.read_bytes() == whole
    assert "was torn" in caplog.text and "tiny: nothing is left to run" in caplog.text
    assert main(["status", path, "--results", str(tmp_path)]) == 0
    assert "last line" not in capsys.readouterr().out
    results.path.write_bytes(whole[:-1])  # the end alone is missing
    assert main(["run", path, "--results", str(tmp_path), "--device", "cpu"]) == 0
    assert results.path.read_bytes() == whole


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
