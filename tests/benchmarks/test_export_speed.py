"""The benchmark of exported files compares like with like, and the guide shows what it printed."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("pycocotools")
pytest.importorskip("timm")

from cycledistill.integrations.coco import create_pose_model
from tests.scripts import load_script

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))  # it imports the one beside it
    module = load_script("benchmarks/export_speed.py")
    small = {"image_size": (64, 48), "backbone": "none", "patch_size": (8, 8), "dim": 24, "depth": 1, "heads": 2}
    monkeypatch.setattr(module, "create_pose_model", lambda name, **more: create_pose_model(name, **small, **more))
    return module


@pytest.mark.slow
def test_it_measures_and_writes(benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, threads = tmp_path / "speed.json", torch.get_num_threads()
    call = ["--models", "sdpose_s_v1", "--batch", "2", "--repeats", "2", "--runners", "onnx", "--out", str(out)]
    try:
        assert benchmark.main(call) == 0
    finally:
        torch.set_num_threads(threads)
    record = json.loads(out.read_text())
    rows = {row["what"]: row for row in record["rows"]}
    assert list(rows) == ["plain", "exit 1", "exit 2", "joints"]
    assert {"allocator", "clock", "device"} <= set(record["conditions"])
    assert {"onnx", "onnxruntime", "torch"} <= set(record["conditions"]["versions"])
    assert rows["exit 1"]["nodes"] == rows["plain"]["nodes"] < rows["exit 2"]["nodes"]
    assert all(row["onnx over eager"] > 0 and "compiled over eager" not in row for row in rows.values())
    assert benchmark.table(record["rows"]) in capsys.readouterr().out


def test_a_pytorch_program_answers_like_eager(benchmark: ModuleType, tmp_path: Path) -> None:
    x = torch.randn(2, 4)
    with torch.no_grad():
        made, _ = benchmark.runners(torch.nn.Linear(4, 4).eval(), x, tmp_path, ["eager", "pt2"])
        torch.testing.assert_close(made["pt2"](), made["eager"]())


def test_a_runner_that_answers_otherwise_is_not_timed(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = torch.nn.Linear(4, 4).eval()
    monkeypatch.setattr(torch, "compile", lambda each: lambda x: each(x) + 1)
    with torch.no_grad(), pytest.raises(AssertionError):
        benchmark.runners(module, torch.randn(2, 4), tmp_path, ["eager", "compiled"])


@pytest.mark.parametrize("arguments", [["--models", "tokenpose_t"], ["--runners", "tensorrt"]])
def test_bad_arguments_are_refused(benchmark: ModuleType, arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        benchmark.main([*arguments, "--out", str(tmp_path / "x.json")])
    assert not list(tmp_path.iterdir())


def test_the_guide_shows_what_the_committed_run_printed(benchmark: ModuleType) -> None:
    record = json.loads((ROOT / "benchmarks" / "results" / "export_speed-cpu.json").read_text(encoding="utf-8"))
    guide = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    assert f"```text\n{benchmark.table(record['rows'])}\n```" in guide
