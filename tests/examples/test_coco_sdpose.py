from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("pycocotools")

from cycledistill.integrations.coco import create_pose_model, save_pose_weights
from cycledistill.integrations.coco.data.synthetic import write_synthetic
from tests.scripts import exit_code, load_script

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "coco_sdpose.py"
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


@pytest.fixture
def weights(tmp_path: Path) -> tuple[Path, Path]:
    """A file of weights, and the recipe of its model."""
    torch.manual_seed(0)
    path, config = tmp_path / "weights.safetensors", tmp_path / "small.yaml"
    save_pose_weights(create_pose_model("sdpose_s_v1", **{**SMALL, "image_size": (64, 48)}), path)
    config.write_text(f"model: {{name: sdpose_s_v1, options: {json.dumps(SMALL)}}}\n")
    return path, config


def run_script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


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


def test_it_draws_on_pictures_and_counts_what_is_none(
    example: ModuleType, weights: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, output = tmp_path / "photos", tmp_path / "drawn"
    photos.mkdir()
    grey = np.full((60, 90, 3), 128, np.uint8)
    Image.fromarray(grey).save(photos / "000007.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera on its side
    Image.fromarray(grey).save(photos / "000009.jpg", exif=exif)
    (photos / "notes.txt").write_text("no picture")
    (photos / "broken.jpg").write_bytes((photos / "000007.jpg").read_bytes()[:200])
    (photos / "folder").mkdir()
    call = [
        "--images",
        photos,
        "--weights",
        weights[0],
        "--config",
        weights[1],
        "--output",
        output,
        "--threshold",
        "-9",
    ]
    assert example.main(list(map(str, call))) == 0
    assert f"2 pictures with 2 persons drawn to {output}; 2 files were no pictures" in capsys.readouterr().out
    with Image.open(output / "000007.jpg.png") as one, Image.open(output / "000009.jpg.png") as turned:
        assert (one.size, turned.size) == ((90, 60), (60, 90))
        assert (np.array(one) != 128).any()
    boxes = tmp_path / "boxes.json"
    entry = {"image_id": 7, "category_id": 1, "bbox": [5, 5, 30, 40], "score": 0.9}
    boxes.write_text(json.dumps([entry, {**entry, "bbox": [40, 5, 30, 40]}, {**entry, "score": 0.1}]))
    assert example.main([*map(str, call), "--boxes", str(boxes)]) == 0
    printed = capsys.readouterr().out
    assert f"1 of 2 pictures have no box in {boxes}: 000009.jpg" in printed and "2 pictures with 2 persons" in printed
    with Image.open(output / "000009.jpg.png") as nobody:
        assert nobody.size == (90, 60)  # as stored: that is what boxes of a file are measured in
        assert (np.abs(np.array(nobody).astype(int) - 128) < 4).all()


def test_boxes_of_a_file_are_cut_by_score_and_place(
    example: ModuleType, weights: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, output, boxes = tmp_path / "photos", tmp_path / "drawn", tmp_path / "boxes.json"
    photos.mkdir()
    for name in ("785.jpg", "785.png"):
        Image.fromarray(np.full((60, 90, 3), 128, np.uint8)).save(photos / name)
    entry = {"image_id": 785, "category_id": 1, "bbox": [5, 5, 30, 40], "score": 0.9}
    outside = [{**entry, "bbox": box} for box in ([95, 5, 9, 9], [5, -30, 9, 30])]
    boxes.write_text(json.dumps([entry, *outside, {**entry, "score": 0.1}]))
    call = ["--images", photos, "--weights", weights[0], "--config", weights[1], "--output", output, "--boxes", boxes]
    for more, persons in ([], 2), (["--box-score", "0.05"], 4), (["--box-score", "0.95"], 0):
        assert example.main([*map(str, call), *more]) == 0
        printed = capsys.readouterr().out
        assert f"2 pictures with {persons} persons" in printed
        assert ("4 boxes" in printed and "outside their picture" in printed) == (persons > 0)
    assert sorted(file.name for file in output.iterdir()) == ["785.jpg.png", "785.png.png"]
    boxes.write_text(json.dumps([{**entry, "image_id": 42}]))
    with pytest.raises(SystemExit):
        example.main([*map(str, call)])
    message = capsys.readouterr().err
    assert str(boxes) in message and str(photos) in message and "image 42" in message and "785.jpg" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "at least 1 of each"),
        (["--steps", "0"], "at least 1 of each"),
        (["--cycles", "3"], "--cycles: recipe options need --data"),
        (["--data", "somewhere", "--steps", "5"], "know no --figure, --jobs, --seeds, --steps"),
        (["--images", "."], "--images FOLDER needs --weights PATH"),
        (["--weights", "w.pth"], "--images FOLDER needs --weights PATH"),
        (["--images", ".", "--weights", "w.pth", "--steps", "3"], "goes with --config, --boxes"),
        (["--images", ".", "--weights", "no/such/run"], "no/such/run"),
        (["--images", ".", "--weights", "w.pth", "--box-score", "30"], "--box-score 30.0: a score from 0 to 1"),
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


def test_a_detector_without_weights_and_a_bad_boxes_file_are_named(
    example: ModuleType, weights: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (30, 40)).save(tmp_path / "photos" / "street.png")
    (tmp_path / "boxes.json").write_text('[{"image_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]')
    call = ["--images", str(tmp_path / "photos"), "--weights", str(weights[0]), "--config", str(weights[1])]
    for more, message in (
        (["--detector", "keypointrcnn_resnet50_fpn"], "not downloaded unasked"),
        (["--boxes", str(tmp_path / "boxes.json")], "street.png: a detections file knows pictures by COCO's numbers"),
    ):
        with pytest.raises(SystemExit):
            example.main([*call, *more, "--output", str(tmp_path / "drawn")])
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_with_a_data_set_it_trains_resumes_and_evaluates(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_synthetic(tmp_path / "set", 6, 3, size=(96, 128))
    options = ["--data", root, "--device", "cpu", "--workers", "0", "--batch-size", "4"]
    small = ["--set", f"model.options={json.dumps(SMALL)}", "--set", "data.detections=null"]
    command = [*options, "--config", "sdpose_s_v1", "--output", tmp_path / "run", "--epochs", "9", *small]
    first = run_script(*command, "--max-steps", "2")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["step"] == 2
    # The script has run as a program; what else it does, it does in this process as well, and sooner.
    assert example.main([*map(str, command), "--max-steps", "3", "--resume", "auto"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 3
    assert example.main(["--evaluate", *map(str, (tmp_path / "run", *options))]) == 0
    assert json.loads(capsys.readouterr().out)["exits"].keys() == {"1", "2", "3"}
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (60, 80)).save(tmp_path / "photos" / "street.png")
    drawn = ["--images", tmp_path / "photos", "--weights", tmp_path / "run", "--output", tmp_path / "drawn"]
    assert example.main([*map(str, drawn)]) == 0
    assert (tmp_path / "drawn" / "street.png.png").is_file()
