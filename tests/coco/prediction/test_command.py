"""``cycledistill predict``: every kind of model, what it says and what it refuses, and how a camera ends."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("accelerate")
pytest.importorskip("pycocotools")

from cycledistill.commands.frame import main
from cycledistill.integrations.coco.data.annotations import annotated_persons
from cycledistill.integrations.coco.data.detections import read_detections
from cycledistill.integrations.coco.data.images import ImageStore
from cycledistill.integrations.coco.data.joints import COCO
from cycledistill.integrations.coco.evaluation.ground_truth import load_ground_truth
from cycledistill.integrations.coco.evaluation.measure import predict_persons
from cycledistill.integrations.coco.predict import predict
from cycledistill.integrations.coco.prediction.models import open_model
from cycledistill.integrations.coco.recipe import load_recipe
from cycledistill.integrations.coco.train import train
from cycledistill.integrations.coco.training.build import eval_settings
from cycledistill.integrations.coco.weights.loading import save_pose_weights
from cycledistill.recipes.errors import CheckpointError
from tests.coco.test_predict import near
from tests.scripts import exit_code

Lines = pytest.CaptureFixture[str]
OPTIONS: dict[str, Any] = {
    "image_size": [64, 48],
    "backbone": "none",
    "patch_size": [16, 12],
    "dim": 16,
    "depth": 2,
    "heads": 2,
}


@pytest.fixture(scope="module")
def saved(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save_pretrained(folder)
    return folder


def poses_of(folder: Path) -> Any:
    return np.array([entry["keypoints"] for entry in json.loads((folder / "results.json").read_text())])


def test_a_published_model_and_a_file_of_weights(
    dots: Path, model: Any, saved: Path, tmp_path: Path, capsys: Lines
) -> None:
    boxes = str(dots / "detections.json")
    out = tmp_path / "a"
    words = ["predict", str(saved), str(dots / "pictures"), "--output", str(out), "--boxes", boxes, "--device", "cpu"]
    assert exit_code(main, [*words, "--exit", "2"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("6 persons in 3 pictures, ") and "pictures a second; 0 pictures have nobody" in said
    assert f"{out}: drawn, poses, poses.csv, results.json" in said
    files, found = [dots / "pictures" / f"{n}.png" for n in (1, 2, 3)], read_detections(boxes)
    expected = predict(model, files, [found[n].boxes for n in (1, 2, 3)], exit=2)
    near(poses_of(out), np.concatenate([each.reshape(2, 51) for each in expected if each is not None]))

    save_pose_weights(model, tmp_path / "w.safetensors")
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({"model": {"name": "sdpose_s_v1", "options": OPTIONS}, "evaluate": {"flip": False}}))
    words[1], words[4] = str(tmp_path / "w.safetensors"), str(tmp_path / "b")
    assert exit_code(main, [*words, "--config", str(config), "--write", "results", "--limit", "1"]) == 0
    assert [each.name for each in (tmp_path / "b").iterdir()] == ["results.json"]
    assert not np.allclose(poses_of(tmp_path / "b"), poses_of(out)[:2], atol=0.1)  # by its recipe: no flip test, exit 1


def test_categories_are_named_and_written(dots: Path, saved: Path, tmp_path: Path, capsys: Lines) -> None:
    entries = json.loads((dots / "detections.json").read_text())
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps([{**each, "category_id": 3 + place % 2} for place, each in enumerate(entries)]))
    words = ["predict", str(saved), str(dots / "pictures"), "--output", str(tmp_path / "out"), "--write", "results"]
    words += ["--device", "cpu"]
    assert exit_code(main, [*words, "--boxes", str(boxes)]) == 2
    assert "the boxes are of 2 categories (3, 4), and nothing says which count" in capsys.readouterr().err
    assert exit_code(main, [*words, "--categories", "4"]) == 2
    assert "--categories 4 without --boxes" in capsys.readouterr().err
    assert exit_code(main, [*words, "--boxes", str(boxes), "--categories", "4"]) == 0
    assert [each["category_id"] for each in json.loads((tmp_path / "out" / "results.json").read_text())] == [4] * 3
    # poses of the model's joints, as --results writes them: whatever their categories
    people = json.loads((dots / "annotations" / "val.json").read_text())["annotations"]
    poses = [
        {"image_id": each["image_id"], "category_id": 3 + place % 2, "keypoints": each["keypoints"], "score": 0.5}
        for place, each in enumerate(people)
    ]
    boxes.write_text(json.dumps(poses))
    shutil.rmtree(tmp_path / "out")
    assert exit_code(main, [*words, "--boxes", str(boxes)]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [each["image_id"] for each in found] == [each["image_id"] for each in poses]
    assert [each["category_id"] for each in found] == [3, 4] * 3


@pytest.mark.slow
def test_a_run_says_by_itself_how_it_is_evaluated(dots: Path, tmp_path: Path, capsys: Lines) -> None:
    parts = {"train_annotations": "annotations/train.json", "val_annotations": "annotations/val.json"}
    pictures = {"train_images": "pictures", "val_images": "pictures", "detections": None, "workers": 0}
    recipe: dict[str, Any] = {
        "model": {"name": "sdpose_s_v1", "options": OPTIONS},
        "data": {"root": str(dots), **parts, **pictures, "batch_size": 3},
        "schedule": {"epochs": 1, "milestones": [], "warmup_steps": 0},
        "ema": {"enabled": True},
        "evaluate": {"nms": None, "flip": False, "keypoint_threshold": 0.0},
        "run": {"output": str(tmp_path / "run"), "max_steps": 2, "progress": False, "device": "cpu"},
    }
    train(load_recipe(recipe))
    model, settings = open_model(tmp_path / "run")
    assert (settings.flip, settings.nms, settings.keypoint_threshold) == (False, None, 0.0)
    averaged, _ = open_model(tmp_path / "run", ema=True)
    assert not torch.equal(model.keypoint_token, averaged.keypoint_token)
    words = ["predict", str(tmp_path / "run"), str(dots / "pictures"), "--output", str(tmp_path / "out")]
    assert exit_code(main, [*words, "--write", "csv", "--device", "cpu"]) == 0
    assert "3 persons in 3 pictures" in capsys.readouterr().out
    results = tmp_path / "results"
    assert exit_code(main, ["train", "coco", "--evaluate", str(tmp_path / "run"), "--results", str(results)]) == 0
    settings_of = load_recipe({**recipe, "data": {**recipe["data"], "categories": ["person"]}})
    assert eval_settings(settings_of).categories == ("person",) and settings.categories is None
    names = [f"{weights}_exit{n}.json" for weights in ("ema", "model") for n in (1, 2, 3)]
    assert sorted(each.name for each in results.iterdir()) == names
    labels = json.loads((dots / "annotations" / "val.json").read_text())
    persons, images = annotated_persons(labels, COCO, (64, 48)), ImageStore(dots / "pictures")
    for each, name in ((model, "model"), (averaged, "ema")):
        found = load_ground_truth(labels, COCO).loadRes(str(results / f"{name}_exit2.json")).anns.values()
        expected = predict_persons(each, persons, images, COCO, exits=(2,), settings=settings)[2]
        near([entry["keypoints"] for entry in found], [expected[row].ravel() for row in range(6)])
        assert [entry["image_id"] for entry in found] == [1, 1, 2, 2, 3, 3]
    file = tmp_path / "run" / "checkpoints"
    for each in file.rglob("recipe.json"):
        each.write_text(json.dumps({**json.loads(each.read_text()), "command": "human36m"}))
    with pytest.raises(CheckpointError, match="train human36m`, and here .*train coco`.*cycledistill predict takes it"):
        open_model(tmp_path / "run")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({1: "no/such/run"}, "no/such/run"),
        ({2: "nothing"}, "nothing: there is no such picture, folder"),
        ({2: "77"}, "camera 77 is not there"),
        ({4: "photos/found"}, "the output photos/found and photos are in each other"),
        ({5: "--limit", 6: "0"}, "--limit 0: a whole number of at least 1"),
        ({5: "--exit", 6: "0"}, "--exit 0: a whole number"),
        ({5: "--box-score", 6: "0.5"}, "--box-score 0.5 without --boxes or --detector"),
        ({5: "--boxes", 6: "boxes.json"}, "boxes.json: there is no such file"),
        ({5: "--detector", 6: "yolo"}, "'yolo' is no person detector of torchvision"),
        (
            {5: "--detector", 6: "fasterrcnn_mobilenet_v3_large_320_fpn"},
            "are not on this machine, and are not downloaded",
        ),
        ({5: "--device", 6: "cuda:9"}, "--device='cuda:9' is not here"),
    ],
)
def test_what_cannot_be_used_is_said_and_nothing_is_left(
    dots: Path,
    saved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Lines,
    changed: dict[int, str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    shutil.copytree(dots / "pictures", "photos")
    words = ["predict", str(saved), "photos", "--output", "found", *([""] * (len(changed) if 5 in changed else 0))]
    for place, word in changed.items():
        words[place] = word
    assert exit_code(main, words) == 2
    assert message in capsys.readouterr().err
    assert sorted(each.name for each in tmp_path.iterdir()) == ["photos"]


def test_a_camera_ends_by_ctrl_c_and_everything_is_written(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Lines
) -> None:
    class Endless:
        count = 0

        def isOpened(self) -> bool:
            return True

        def get(self, what: int) -> float:
            return 0.0

        def read(self) -> tuple[bool, Any]:
            self.count += 1
            if self.count == 3:
                signal.raise_signal(signal.SIGINT)
            return True, np.full((48, 64, 3), self.count, np.uint8)

        def release(self) -> None:
            pass

    file_capture, before = cv2.VideoCapture, signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(cv2, "VideoCapture", lambda what: Endless() if what == 0 else file_capture(what))
    monkeypatch.chdir(tmp_path)
    assert exit_code(main, ["predict", str(saved), "0", "--output", "found", "--device", "cpu"]) == 0
    assert "3 persons in 3 pictures" in capsys.readouterr().out
    names = ["drawn.mp4", "keypoints.npz", "poses.csv", "poses.jsonl", "results.json"]
    assert sorted(each.name for each in (tmp_path / "found").iterdir()) == names
    assert signal.getsignal(signal.SIGINT) is before
