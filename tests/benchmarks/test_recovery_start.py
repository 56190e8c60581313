"""The trial of why the learned recovery stands still: what it measures, and that the guide says what it recorded."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from cycledistill.hourglass.recovery import FrameRecovery
from tests.scripts import load_script

pytest.importorskip("accelerate")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def trial() -> ModuleType:
    return load_script("benchmarks/recovery_start.py")


def test_how_far_a_recovery_looks(trial: ModuleType) -> None:
    kept, index = torch.randn(2, 3, 1, 8), torch.tensor([[0, 4, 8], [0, 1, 2]])
    plain, local = FrameRecovery(9, 8, 2), FrameRecovery(9, 8, 2, local=True)
    for each in (plain, local):
        torch.nn.init.zeros_(each.k.weight)  # no kept frame is like another to the queries
    away, even = trial.distance(plain, kept, index)
    by_hand = [sum(abs(frame - each) for frame in range(9) for each in clip) / 27 for clip in index.tolist()]
    assert even == pytest.approx(sum(by_hand) / 2)
    assert away == pytest.approx(even)
    assert trial.distance(local, kept, index)[0] < 0.75 * even


@pytest.mark.slow
def test_trial_prints_what_it_writes(
    trial: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe_of = trial.recipe_of
    small = {"data.sequences": 2, "data.length": 81, "data.views": 1, "data.batch_size": 2}
    monkeypatch.setattr(trial, "recipe_of", lambda *given: recipe_of(*given[:-1], {**given[-1], **small}))
    out = tmp_path / "start.json"
    assert trial.main(["generated", "--steps", "2", "--every", "1", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert list(record["variants"]) == list(trial.VARIANTS)
    assert all([each["step"] for each in found] == [1, 2] for found in record["variants"].values())
    assert trial.table(record) in capsys.readouterr().out
    with pytest.raises(SystemExit):
        trial.main(["generated", "--steps", "2", "--every", "3"])


def test_the_guide_says_what_was_recorded() -> None:
    record = json.loads((ROOT / "benchmarks" / "results" / "recovery_start-cpu.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "hourglass.md").read_text(encoding="utf-8")
    for name, found in record["variants"].items():
        cells = [f"{each['std']:.2f}" for each in found] + [f"{found[-1]['away']:.1f}", f"{found[-1]['mpjpe']:.1f}"]
        assert f"| {name} | {' | '.join(cells)} |" in page
        assert f"{found[-1]['even']:.0f} frames" in page
