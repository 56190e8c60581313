from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.scripts import exit_code, load_script, run_program

pytest.importorskip("accelerate")


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load_script("examples/human36m_hot.py")


@pytest.mark.slow
def test_with_no_data_it_prints_a_table_and_saves_a_picture(tmp_path: Path) -> None:
    figure = tmp_path / "figures" / "picture.png"
    call = ["--seeds", 2, "--steps", 3, "--processes", 1, "--output", tmp_path / "out", "--figure", figure]
    done = run_program("examples/human36m_hot.py", *call)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    with Image.open(figure) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 600
    assert str(figure) in done.stdout
    for arm, runs in record["runs"].items():
        assert [run["seed"] for run in runs] == [0, 1]
        row = next(line for line in done.stdout.splitlines() if re.match(rf"{re.escape(arm)}\s{{2,}}", line))
        cells = re.split(r"\s{2,}", row.strip())
        values = [run["mpjpe"] for run in runs]
        assert cells[1] == f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
        assert cells[5] == f"{record['macs'][arm][0]:.1f}"
        assert cells[7] == f"{record['milliseconds'][arm]:.2f}"
    assert "times fewer MACs than full" in done.stdout


@pytest.mark.slow
def test_arms_of_a_seed_start_from_the_same_weights_and_deploy_alike(example: ModuleType) -> None:
    states = {arm: example.build_model(arm, seed=3).state_dict() for arm in example.ARMS}
    for arm, state in states.items():
        assert all(torch.equal(state[name], value) for name, value in states["full"].items()), arm
    other = example.build_model("full", seed=4).state_dict()
    assert not torch.equal(other["embed_frame.weight"], states["full"]["embed_frame.weight"])
    clips = torch.randn(2, example.FRAMES, 17, 2)
    with torch.no_grad():
        hot, cycled = (example.build_model(arm, 3).eval()(clips) for arm in ("hot", "hot, 2 cycles"))
    assert torch.equal(hot, cycled), "one cycle in evaluation"
    macs = example.measure_macs()
    assert macs["full"][0] > 2 * macs["hot"][0] and macs["hot"] == macs["hot, 2 cycles"]


def test_the_still_pose_is_the_best_that_does_not_move(example: ModuleType) -> None:
    _, test = example.load_data()
    found = example.still_poses(test[:4])
    assert found["temporal_std_ratio_frame_mean"] == 0
    assert 5 < found["mpjpe_frame_mean"] < 150


def test_training_and_testing_figures_are_others(example: ModuleType) -> None:
    training, test = example.load_data()
    assert not {clip.subject for clip in training} & {clip.subject for clip in test}
    assert len(training) == example.TRAIN * example.VIEWS


def test_the_text_names_what_stands_still(example: ModuleType) -> None:
    record: dict[str, Any] = {
        "macs": {arm: (20.0 if arm == "full" else 10.0, 0, 0) for arm in example.ARMS},
        "milliseconds": {arm: 3.0 if arm == "full" else 2.0 for arm in example.ARMS},
        "runs": {arm: [{"temporal_std_ratio": 0.01 if arm == "hot" else 0.5}] for arm in example.ARMS},
    }
    text = example.explain(record)
    assert "hot: 2.00 times fewer MACs than full, 1.50 times less time." in text
    assert "whatever their MPJPE: hot.\n" in text


def test_with_data_it_hands_over(example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(example, "run_recipe", lambda argv: seen.append(argv) or 0)
    data = ["--data", "a.npz", "b.npz", "--calibration", "c.json"]
    assert example.main([*data, "--output", "o", "--allow-pickle", "--cycles", "2"]) == 0
    joined = " ".join(seen[0])
    for part in ("--pose-3d a.npz", "--pose-2d b.npz", "--calibration c.json", "--output o", "--cycles 2",
                 "--config hot_mixste", "--dataset h36m", "--set data.allow_pickle=true"):  # fmt: skip
        assert part in joined
    assert example.main(["--evaluate", "runs/a"]) == 0
    assert seen[1] == ["--evaluate", "runs/a"]
    assert example.main([*data, "--config", "mixste"]) == 0
    assert "hot_mixste" not in seen[2]


def test_errors_are_said(example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--seeds", "1"], "at least 2 seeds"),
        (["--steps", "5", "--config", "mixste"], "--steps is of the comparison on generated motion"),
        (["--data", "a.npz", "b.npz", "--output", str(tmp_path / "o")], "data.calibration is not set"),
        (["--data", str(tmp_path / "a.npz"), "b.npz", "--calibration", str(tmp_path / "c.json"), "--output",
          str(tmp_path / "p")], "c.json: there is no such file"),
    ):  # fmt: skip
        assert exit_code(example.main, arguments) == 2
        assert message in capsys.readouterr().err
