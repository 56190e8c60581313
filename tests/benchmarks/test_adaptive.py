"""The benchmark of adaptive inference compares like with like, and writes what it found."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytest.importorskip("timm")
pytest.importorskip("sklearn")

from tests.scripts import load_script

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # it imports the one beside it
    return load_script("benchmarks/adaptive.py")


@pytest.mark.slow
def test_it_measures_and_writes(benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, threads = tmp_path / "adaptive.json", torch.get_num_threads()
    call = ["--device", "cpu", "--models", "test_vit", "--batch", "8", "--repeats", "2", "--seeds", "2", "--steps", "3"]
    try:
        code = benchmark.main([*call, "--out", str(out)])
    finally:
        torch.set_num_threads(threads)
    record = json.loads(out.read_text())
    (row,) = record["overhead"]
    assert row["ratio"] > 0 and row["pass"] is (row["ratio"] <= benchmark.BAR) and code == int(not row["pass"])
    assert 1 < row["MACs over fixed"] < 1.05, "more tails, and nothing else"
    assert [len(study["rows"]) for study in record["digits"]] == [3 + benchmark.POINTS] * 2
    assert "digits, mean over 2 seeds" in capsys.readouterr().out


@pytest.mark.slow
def test_samples_leave_as_they_are_meant_to(benchmark: ModuleType) -> None:
    case = benchmark.Case("test_vit", 8, torch.device("cpu"))
    with torch.no_grad():
        case.check()
        assert case.adaptive(case.images, return_exits=True)[1].bincount().tolist() == [0, 4, 2, 2]
        case.places = case.places.roll(1)
        with pytest.raises(AssertionError):
            case.check()
