"""The benchmark of parts of a batch runs every way in turn, and reports each beside the whole batch."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("resource")  # page faults are counted there
pytest.importorskip("pycocotools")
pytest.importorskip("timm")

from tests.scripts import load_script

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # it imports the one beside it
    return load_script("benchmarks/sub_batches.py")


def test_ways_take_turns_and_gains_are_over_the_whole_batch(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int | None] = []

    class Way:
        def __init__(self, name: str, batch: int, size: int | None, threads: int) -> None:
            self.size = size

        def once(self) -> dict[str, float]:
            asked.append(self.size)
            return {"cpu": 3.0 if self.size is None else float(self.size), "wall": 1.0, "faults": 7.0}

        def close(self) -> None:
            asked.append(-1)

    monkeypatch.setattr(benchmark, "Way", Way)
    out, threads = tmp_path / "parts.json", torch.get_num_threads()
    call = ["--models", "toy", "--batch", "4", "--size", "2", "8", "--repeats", "1", "--out", str(out)]
    try:
        assert benchmark.main(call) == 0
    finally:
        torch.set_num_threads(threads)
    assert asked == [None, 2, 2, None, None, 2, -1, -1]  # parts of 8 are no parts of 4
    rows = json.loads(out.read_text())["rows"]
    assert [(row["size"], row["gain, cpu"], row["faults, median"]) for row in rows] == [(None, 1, 7), (2, 1.5, 7)]
    assert "whole" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sdpose_t", "sdpose_t plain", "test_vit", "hot_frame_lifter"])
def test_a_call_is_one_of_the_model_named(benchmark: ModuleType, name: str) -> None:
    model, inputs = benchmark.model_and_inputs(name, 2)
    assert isinstance(model, nn.Module) and not model.training and len(inputs) == 2
    taken: dict[str, Any] = benchmark.call(model, inputs, 1)
    assert taken["cpu"] > 0 and taken["wall"] > 0 and taken["faults"] >= 0
