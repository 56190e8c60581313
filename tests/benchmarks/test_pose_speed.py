"""The benchmark of the pose models compares like with like, and says what it found."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

pytest.importorskip("pycocotools")
pytest.importorskip("timm")

from cycledistill.integrations.coco import create_pose_model
from tests.scripts import load_script

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CPU = torch.device("cpu")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # it imports the one beside it
    module = load_script("benchmarks/pose_speed.py")
    small = {"image_size": (64, 48), "dim": 24, "depth": 1, "heads": 2}
    monkeypatch.setattr(module, "create_pose_model", lambda name, **more: create_pose_model(name, **small, **more))
    return module


@pytest.mark.slow
def test_it_measures_and_writes(benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, threads = tmp_path / "speed.json", torch.get_num_threads()
    call = ["--device", "cpu", "--models", "sdpose_t", "--batch", "1", "2", "--repeats", "2", "--out", str(out)]
    try:
        assert benchmark.main(call) == 0
    finally:
        torch.set_num_threads(threads)
    record = json.loads(out.read_text())
    rows = record["rows"]
    assert [row["what"] for row in rows] == ["decode"] * 2 + ["inference", "training"] * 2
    assert {"allocator", "clock", "device", "versions"} <= set(record["conditions"])
    for row in rows[2:]:
        assert row["ratio"] > 0 and row["pass"] is (row["ratio"] <= benchmark.BARS[row["what"]])
        assert row["cycles"] == 3 and all(value > 0 for key, value in row.items() if key.startswith("images/s"))
    assert rows[2]["prepared differs by"] < 1e-3  # compared, not timed
    assert rows[3]["MACs over one cycle"] > 1
    assert "bf16" in capsys.readouterr().out


def test_the_loop_by_hand_is_the_model_at_one_cycle_and_the_wrapped_one_at_several(benchmark: ModuleType) -> None:
    case = benchmark.Case("sdpose_s_v1", 2, CPU)
    case.plain.train()
    case.wrapped.train()
    losses = case.losses()
    case.check(losses)
    one = benchmark.by_hand(case.plain, case.images, case.target, 1)
    torch.testing.assert_close(one, losses["one cycle"](), rtol=0, atol=0)
    case.cycles = 3  # by hand only
    with pytest.raises(AssertionError):
        case.check(losses)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        ({"what": "inference", "ratio": 1.01}, True),
        ({"what": "inference", "ratio": 1.04}, False),
        ({"what": "training", "ratio": 1.03}, True),
        ({"what": "training", "ratio": 1.04}, False),
        ({"what": "decode", "persons/s": 7999.0}, False),
        ({"what": "decode", "persons/s": 8000.0}, True),
    ],
)
def test_verdicts(benchmark: ModuleType, row: dict[str, Any], verdict: bool) -> None:
    assert benchmark.judge(row, CPU) is verdict


@pytest.mark.parametrize("arguments", [["--models", "tokenpose_t"], ["--models", "sdpose_reg"], ["--what", "sleep"]])
def test_bad_arguments_are_refused(benchmark: ModuleType, arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        benchmark.main([*arguments, "--out", str(tmp_path / "x.json")])
    assert not list(tmp_path.iterdir())
