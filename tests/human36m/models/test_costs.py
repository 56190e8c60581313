"""Costs of the lifting models by the benchmark's count, against those of the authors' code; compiled and exported."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from cycledistill.integrations.human36m import create_lifter
from tests.scripts import load_script

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def costs() -> ModuleType:
    return load_script("benchmarks/lifting_costs.py")


@pytest.mark.slow
def test_every_published_figure_agrees(costs: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert costs.main(["--out", str(tmp_path / "costs.json")]) == 0
    records = json.loads((tmp_path / "costs.json").read_text())["models"]
    assert [record["name"] for record in records] == list(costs.KNOWN)
    assert all(record["agrees"] and all(record["agrees"].values()) for record in records)
    assert "DIFFERS" not in capsys.readouterr().out


def test_another_figure_is_noticed(costs: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(costs.KNOWN, "mixste", costs.Known("33.784", "277.29", "17.60"))
    assert costs.main(["--names", "mixste", "--out", str(tmp_path / "costs.json")]) == 1


def test_frames_dropped_scale_the_work_of_the_levels(costs: ModuleType) -> None:
    # 3 levels at 243 frames, 5 at 81, the recovery: the sum of the parts, from the width alone
    frames, kept, joints, dim = 243, 81, 17, 512
    pair = 2 * 8 * dim**2 * joints  # two blocks, each 8 C^2 a token
    first = dim**2 * 8 * joints  # the first level has no spatial half; the stem has it
    want = (first + first + 2 * pair) * frames + 5 * pair * kept
    want += dim**2 * (frames + joints * (frames + 2 * kept))  # q once; projection; k and v
    want += joints * frames * dim * (2 + 3)  # embedding, head
    assert costs.examine("hot_mixste")["linear"] == pytest.approx(2 * want / 1e9, rel=1e-9)


SMALL: dict[str, dict[str, Any]] = {
    "hot_mixste": {"frames": 9, "dim": 16, "depth": 4},
    "tpc_mhformer": {"frames": 18, "dim": 16, "hidden": 32},
    "hot_motionbert": {"frames": 9, "dim": 16, "depth": 3, "dim_rep": 24},
    "hot_frame_lifter": {"frames": 9, "dim": 16, "depth": 3},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.usefixtures("cuda_in_use")
def test_exported_lifters_give_the_same(name: str) -> None:
    model = create_lifter(name, **SMALL[name]).eval()
    config = model.config
    clips = torch.randn(2, config.frames, config.joints, config.in_channels)
    with torch.no_grad():
        want = model(clips)
        program = torch.export.export(model, (clips,))
        torch.testing.assert_close(program.module()(clips), want)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.usefixtures("cuda_in_use")
def test_compiled_lifters_give_the_same(name: str) -> None:
    model = create_lifter(name, **SMALL[name], cycles=2, distill="exits").eval()
    config = model.config
    clips = torch.randn(2, config.frames, config.joints, config.in_channels)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(clips), model(clips))
