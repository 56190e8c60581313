"""The benchmark of runtimes for small devices measures what is there, names what is not; the guide shows its table."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("pycocotools")
pytest.importorskip("timm")

import timm

from tests.scripts import load_script

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))  # it imports those beside it
    module = load_script("benchmarks/edge.py")
    create = timm.create_model
    small = {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 2}
    monkeypatch.setattr(module.timm, "create_model", lambda name: create(name, **small))
    return module


@pytest.mark.slow
def test_it_measures_skips_and_writes(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*given: Any) -> None:
        raise RuntimeError("no such processor\nand more")

    monkeypatch.setitem(benchmark.NEEDS, "openvino", ("no_such_package",))
    monkeypatch.setitem(benchmark.NEEDS, "executorch", ())
    monkeypatch.setitem(benchmark.BACKENDS, "executorch", fails)
    out, threads = tmp_path / "edge.json", torch.get_num_threads()
    chosen = ["onnx", "onnx-int8-static", "openvino", "executorch"]
    try:
        assert benchmark.main(["--exits", "2", "--repeats", "2", "--backends", *chosen, "--out", str(out)]) == 0
    finally:
        torch.set_num_threads(threads)
    record = json.loads(out.read_text())
    rows = {row["backend"]: row for row in record["rows"]}
    assert list(rows) == ["eager", "onnx", "onnx-int8-static"]
    assert rows["eager"]["over eager"] == 1 and rows["eager"]["differs"] == 0
    assert rows["onnx"]["differs"] < 1e-4 < rows["onnx-int8-static"]["differs"] < 0.2
    assert rows["onnx-int8-static"]["bytes"] < rows["onnx"]["bytes"]
    name = "deit_tiny_patch16_224, exit 2"
    assert record["not run"] == {
        f"{name}, openvino": "no_such_package not installed",
        f"{name}, executorch": "RuntimeError: no such processor",
    }
    assert benchmark.table(record["rows"]) in capsys.readouterr().out


def test_rows_of_an_earlier_run_are_kept(benchmark: ModuleType) -> None:
    def row(exit: int, backend: str, ms: float) -> dict[str, Any]:
        return {"model": "a", "exit": exit, "backend": backend, "ms": ms}

    earlier = [row(2, "eager", 1), row(2, "onnx", 2), row(2, "openvino", 3)]
    new = [row(2, "eager", 9), row(2, "onnx", 8), row(1, "eager", 7)]
    assert benchmark.merged(earlier, new) == [
        row(1, "eager", 7),
        row(2, "eager", 1),
        row(2, "onnx", 8),
        row(2, "openvino", 3),
    ]


@pytest.mark.parametrize("arguments", [["--models", "tokenpose_t"], ["--backends", "tensorrt"]])
def test_bad_arguments_are_refused(benchmark: ModuleType, arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        benchmark.main([*arguments, "--out", str(tmp_path / "x.json")])
    assert not list(tmp_path.iterdir())


def test_the_guide_shows_what_the_committed_run_printed(benchmark: ModuleType) -> None:
    record = json.loads((ROOT / "benchmarks" / "results" / "edge-cpu.json").read_text(encoding="utf-8"))
    guide = (ROOT / "docs" / "edge.md").read_text(encoding="utf-8")
    assert f"```text\n{benchmark.table(record['rows'])}\n```" in guide
    assert all(reason.split(":")[0] in guide for reason in record["not run"].values())
