"""The benchmark of a GPU times every form there, and sees how busy it was."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tests.scripts import load_script

pytestmark = pytest.mark.gpu


def test_a_step_in_every_form(device: torch.device, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("pycocotools")
    load_script("benchmarks/gpu.py")
    jobs, records = sys.modules["on_gpu.jobs"], sys.modules["on_gpu.records"]
    kept = records.Records(tmp_path, {"device": str(device)})
    steps = [jobs.study_job(2, 4, compiled, depth=2, embed_dim=48) for compiled in (False, True)]
    ended = sys.modules["on_gpu.supervise"].run_jobs(steps, kept, device, 2, tmp_path / "status")
    assert ended == 0, kept.read("study_speed")["failed"]
    rows = kept.read("study_speed")["rows"]
    on_gpu = device.type == "cuda"
    forms = ["eager", "graph", "recipe graph", "compiled", "compiled graph"] if on_gpu else ["eager", "compiled"]
    assert [row["form"] for row in rows] == forms
    assert all(row["images/s"] > 0 for row in rows)
    if on_gpu and any("busy, step" in row for row in rows):  # a container may keep the profiler from the counters
        assert all(0 < row["busy, step"] <= 1 for row in rows)
