"""The benchmark of evaluators compares their numbers first, and times both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("pycocotools")
pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed")

from tests.scripts import load_script

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_both_are_timed_on_equal_numbers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # it imports the one beside it
    benchmark = load_script("benchmarks/pose_evaluation.py")
    out = tmp_path / "a.json"
    assert benchmark.main(["--pictures", "4", "--repeats", "1", "--out", str(out)]) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert 0 < row["AP"] < 1 and row["ratio"] > 0 and row["predictions"] >= row["persons"] > 3
    assert "pycocotools" in capsys.readouterr().out
    monkeypatch.setattr(benchmark, "coco_numbers", lambda *_, faster: [0.5 + faster])
    with pytest.raises(AssertionError, match="Not equal"):
        benchmark.main(["--pictures", "2", "--out", str(out)])
