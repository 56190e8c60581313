from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("pycocotools")

from cycledistill.integrations.coco.data.synthetic import write_synthetic
from tests.scripts import exit_code, load_script, run_program

SMALL = {"image_size": [64, 48], "dim": 16, "depth": 1, "heads": 2, "stage1_width": 4}


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load_script("examples/coco_sdpose.py")


@pytest.fixture
def tiny(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example on a dozen pictures, in this process."""
    for name, value in {"TRAIN_PICTURES": 6, "VAL_PICTURES": 4}.items():
        monkeypatch.setattr(example, name, value)
    monkeypatch.setattr(example, "measure_cost", lambda root: 1.5)
    return example


@pytest.mark.slow
def test_it_compares_prints_and_saves(tiny: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    call = ["--seeds", "2", "--steps", "2", "--jobs", "1", "--output", str(output)]
    assert tiny.main(call) == 0
    printed = capsys.readouterr().out
    record = json.loads((output / "results.json").read_text())
    assert {arm: [run["steps"] for run in runs] for arm, runs in record["runs"].items()} == {
        arm: [3 if arm == "base_eq" else 2] * 2 for arm in tiny.ARMS
    }
    assert "bit for bit" in printed
    for key, name in tiny.METRICS.items():
        section = printed[printed.index(name) :].splitlines()
        for line, (arm, runs) in zip(section[1:], record["runs"].items(), strict=False):
            values = np.array([run[key] for run in runs])
            assert values.shape == (2, 3) and (values >= 0).all() and (values <= 100).all()
            cells = [
                f"{mean:.1f} ({one:.1f} {two:.1f})" for mean, one, two in zip(values.mean(0), *values, strict=True)
            ]
            assert re.split(r"\s{2,}", line.strip())[-3:] == cells and line.startswith(arm)
    assert all(run["prepared_differs_by"] < 1e-3 for runs in record["runs"].values() for run in runs)
    with Image.open(output / "poses.png") as picture:
        assert picture.width == 3 * 320 and picture.height > 3 * 240
    again = ["--seeds", "1", "--steps", "1", "--jobs", "1", "--output", str(output)]
    assert tiny.main(again) == 0  # the data set is found again
    with pytest.raises(Exception, match="made otherwise"):
        tiny.write_synthetic(output / "data", 7, 4, seed=tiny.DATA_SEED)


def test_arms_of_a_seed_start_from_the_same_weights_and_see_the_same_batches(
    example: ModuleType, tmp_path: Path
) -> None:
    root = write_synthetic(tmp_path / "set", 4, 1, size=(96, 128))
    _, persons, images = example.load_part(root, "train2017")
    seen: dict[str, list[torch.Tensor]] = {}
    for arm in ("base", "sdpose"):
        model = example.build_model(seed=3)
        seen[arm] = [next(model.parameters()).clone()]
        if example.ARMS[arm]:
            example.wrap_cyclic(model, cycles=example.CYCLES, distill=example.ARMS[arm])
        model.backbone.conv1.register_forward_pre_hook(lambda _, x, kept=seen[arm]: kept.append(x[0].clone()))
        example.train(model, persons, images, steps=3, seed=3)
    assert len(seen["base"]) == 4
    assert all(torch.equal(*pair) for pair in zip(seen["base"], seen["sdpose"], strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "at least 1 of each"),
        (["--steps", "0"], "at least 1 of each"),
        (["--cycles", "3"], "--cycles: recipe options need --data"),
        (["--data", "somewhere", "--steps", "5"], "know no --figure, --jobs, --seeds, --steps"),
        (["--data", "no/such/folder", "--output", "out"], "no/such/folder does not exist"),
        (["--evaluate", "no/such/run", "--data", "."], "no/such/run"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_bad_arguments_are_named(
    example: ModuleType,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert exit_code(example.main, arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("runs*"))


@pytest.mark.slow
def test_with_a_data_set_it_trains_resumes_and_evaluates(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_synthetic(tmp_path / "set", 6, 3, size=(96, 128))
    options = ["--data", root, "--device", "cpu", "--workers", "0", "--batch-size", "4"]
    small = ["--set", f"model.options={json.dumps(SMALL)}", "--set", "data.detections=null"]
    command = [*options, "--config", "sdpose_s_v1", "--output", tmp_path / "run", "--epochs", "9", *small]
    first = run_program("examples/coco_sdpose.py", *command, "--max-steps", "2")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["step"] == 2
    # The script has run as a program; what else it does, it does in this process as well, and sooner.
    assert example.main([*map(str, command), "--max-steps", "3", "--resume", "auto"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 3
    assert example.main(["--evaluate", *map(str, (tmp_path / "run", *options))]) == 0
    assert json.loads(capsys.readouterr().out)["exits"].keys() == {"1", "2", "3"}
