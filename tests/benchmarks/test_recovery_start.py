"""The trial of why the learned recovery stands still: what it measures, and that the guide says what it recorded."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.scripts import load_script

pytest.importorskip("accelerate")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def trial() -> ModuleType:
    return load_script("benchmarks/recovery_start.py")


def test_motion_that_all_windows_share_is_no_motion_of_their_own(trial: ModuleType) -> None:
    still, shared = torch.randn(3, 1, 17, 3).expand(-1, 9, -1, -1), torch.randn(1, 9, 17, 3)
    own = torch.zeros(3, 9, 17, 3)
    own[0, ::3], own[1, ::3] = 1, -1  # a third of the frames: deviation sqrt(2) / 3
    assert float(trial.own_std(still + shared)) == pytest.approx(0, abs=1e-6)
    assert float(trial.own_std(still + shared + own)) == pytest.approx(2 / 3 * 2**0.5 / 3)


def test_variance_of_tokens_within_and_between_windows(trial: ModuleType) -> None:
    between = torch.tensor([-2.0, 2.0]).view(2, 1, 1, 1)
    within = torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1)
    assert trial.share_within((between + within).expand(-1, -1, 3, 5)) == pytest.approx(1 / 5)
    assert trial.share_within(between.expand(-1, 4, 3, 5)) == 0


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
        cells = [f"{each['std']:.2f}" for each in found] + [f"{found[-1]['tokens']:.3f}", f"{found[-1]['mpjpe']:.1f}"]
        moves = found[-1]["std"] > found[0]["std"] + 0.1
        assert moves == (name == 'recover="local"')  # it alone begins to move
        assert f"| {name} | {' | '.join(cells)} |" in page
