"""What the command says and does where there is nothing to do, or where a run, a plan or a file is no good."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytest.importorskip("timm")
pytest.importorskip("sklearn")
pytest.importorskip("markdown_it")

from study.command import main
from study.errors import StudyError
from study.load import load_plan
from study.results import Results
from study.tasks.mazes import Mazes

from .test_results import made_of
from .test_run import lines, run_of

Written = Callable[..., Path]


REASONS = dict.fromkeys(("plain", "equal training", "deeper", "narrower", "narrower, equal training"), "not asked")


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every loss is no number."""
    monkeypatch.setattr(Mazes, "loss", lambda self, output, *target: math.nan * output.sum())


def test_what_starts_from_a_diverged_run_is_left_out_and_the_study_goes_on(
    written: Written, tmp_path: Path, lost: None, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    tuned = {"cycles": 2, "start_from": "base", "without": REASONS}
    arms = {"tuned": tuned, "again": {**tuned, "start_from": "tuned"}, "last": {}}
    path = str(written(arms=arms, seeds=[0]))
    where = [path, "--results", str(tmp_path)]
    asked = ["run", *where, "--device", "cpu", "--arms", "base", "again", "tuned", "last"]
    weights = tmp_path / ".work" / "tiny" / "base-0.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"of other results")
    caplog.set_level("INFO")
    assert main(asked) == 0
    assert [(run["arm"], run["diverged"]) for run in lines(tmp_path)] == [("base", True), ("last", True)]
    said = [f"tiny: {arm}, seed 0 is left out: base, from which it starts, diverged" for arm in ("again", "tuned")]
    assert all(caplog.text.count(each) == 1 for each in said)
    main(["status", *where])
    shown = capsys.readouterr().out
    assert "tiny: 2 of 9 runs, 0 minutes; diverged: base 0, last 0" in shown
    assert "missing: exits 0, base_eq 0, deep 0, narrow 0, narrow_eq 0\n" in shown
    assert "left out, for the arm they start from diverged: tuned 0 (base), again 0 (base)\n" in shown
    caplog.clear()
    assert main(asked) == 0
    assert all(caplog.text.count(each) == 1 for each in said)
    assert "tiny: nothing is left to run of these arms and seeds" in caplog.text
    assert len(lines(tmp_path)) == 2


def test_a_run_that_does_nothing_says_why(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(written(seeds=[0]))
    asked = ["run", path, "--results", str(tmp_path), "--device", "cpu"]
    caplog.set_level("INFO")
    assert main([*asked, "--minutes", "1e-9"]) == 0
    assert [each.getMessage() for each in caplog.records] == ["tiny: --minutes are over, and 6 runs have not begun"]
    assert not (tmp_path / "tiny.jsonl").exists()
    caplog.clear()
    plan = load_plan(path)
    with Results(plan, tmp_path, tmp_path / ".work").claim("base", 0):
        assert main([*asked, "--arms", "base"]) == 0
    assert caplog.messages == ["tiny: base, seed 0 is being run by another process"]
    caplog.clear()
    monkeypatch.setattr("study.running.task_of", None)  # data are not asked for where nothing is left
    for arm in plan.arms:
        Results(plan, tmp_path, tmp_path / ".work").add(made_of(plan, arm=arm, content=plan.content_of(arm)))
    assert main(asked) == main([*asked, "--arms", "base"]) == 0
    assert caplog.messages == ["tiny: nothing is left to run", "tiny: nothing is left to run of these arms and seeds"]


def test_a_plan_that_is_refused_does_not_stop_the_next(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    bad, good = written("bad", task={"side": 0}), written()
    assert main(["status", str(bad), str(good), "--results", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert "error: bad.yaml: task.side: got 0" in shown.err and "tiny: 0 of 12 runs" in shown.out


def test_files_that_are_broken_are_named(written: Written, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, work = written(arms={"tuned": {"cycles": 2, "start_from": "base", "without": REASONS}}), tmp_path / "work"
    work.mkdir()
    for held, message in ((b"PK no state", "truncated, or no PyTorch checkpoint"), (b"", "truncated")):
        (work / "base-0.state").write_bytes(held)
        with pytest.raises(StudyError, match=rf"base-0\.state: {message}"):
            run_of(path, "base", work)
    torch.save([1, 2], work / "base-0.state")
    with pytest.raises(StudyError, match=r"base-0\.state is no state of an unfinished run: remove it"):
        run_of(path, "base", work)
    (work / "base-0.safetensors").write_bytes(b"no weights")
    with pytest.raises(StudyError, match=r"base-0\.safetensors: broken or truncated, or no safetensors file"):
        run_of(path, "tuned", work)
    page, plan = tmp_path / "page.md", load_plan(path)
    page.write_bytes(b"\xff")
    Results(plan, tmp_path, work).add(made_of(plan))
    asked = ["report", str(path), "--results", str(tmp_path), "--into", str(page)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("study.command.write_report", lambda *_: "tiny.md")
        assert main(asked) == 2
    assert "page.md: cannot be read ('utf-8' codec" in capsys.readouterr().err


def test_adaptive_inference_is_of_a_named_study(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["adaptive", "--arm", "exits", "--exits", "1", "2"])
    assert "the following arguments are required: STUDY" in capsys.readouterr().err


def test_a_report_of_all_goes_into_the_pages_places_alone(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    one, two = load_plan(written("one")), load_plan(written("two"))
    monkeypatch.setattr("study.command.PLANS", tmp_path)
    monkeypatch.setattr("study.load.PLANS", tmp_path)
    monkeypatch.setattr("study.command.write_report", lambda plan, *_: f"{plan.name}.md")
    monkeypatch.setattr("study.command.excerpt", lambda plan, *_: f"of {plan.name}")
    for plan in (one, two):
        Results(plan, tmp_path, tmp_path / "work").add(made_of(plan))
    page = tmp_path / "page.md"
    page.write_text("<!-- study two -->\n<!-- end -->\n", encoding="utf-8")
    assert main(["report", "--results", str(tmp_path), "--into", str(page)]) == 0
    assert page.read_text(encoding="utf-8") == "<!-- study two -->\n\nof two\n\n<!-- end -->\n"
    assert main(["report", "one", "--results", str(tmp_path), "--into", str(page)]) == 2
    assert "the page has 0 places for one" in capsys.readouterr().err
