"""A pose model's run as a file, calibrated with persons as its evaluation cuts them out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("accelerate")
pytest.importorskip("pycocotools")
pytest.importorskip("onnxscript")

from cycledistill.commands.frame import main
from cycledistill.exporter.exportable import open_exportable
from cycledistill.integrations.coco.data.dataset import PersonCrops, PictureBatches, crop_loader, prepare_images
from cycledistill.integrations.coco.recipe import load_recipe
from cycledistill.integrations.coco.train import train
from cycledistill.integrations.coco.training.sources import open_validation
from cycledistill.metadata.read import read_words
from tests.coco.figures import SIZE, write_dots
from tests.recipes.run_checks import assert_average_is_exported

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def as_cut(root: Path) -> Path:
    """Each person of the validation set as a picture of its own; the file of detections whose boxes are the whole."""
    annotations = json.loads((root / "annotations/val.json").read_text())
    images, entries = [], []
    (root / "persons").mkdir()
    for number, entry in enumerate(annotations["annotations"], 1):
        x, y, width, height = map(int, entry["bbox"])
        picture = cv2.imread(str(root / "pictures" / f"{entry['image_id']}.png"))[y : y + height, x : x + width]
        cv2.imwrite(str(root / "persons" / f"{number:02d}.png"), picture)
        images.append({"id": number, "file_name": f"{number:02d}.png", "width": width, "height": height})
        joints = np.array(entry["keypoints"]).reshape(-1, 3) - [x, y, 0]
        entries.append(
            entry | {"image_id": number, "bbox": [0, 0, width, height], "keypoints": joints.ravel().tolist()}
        )
    (root / "annotations/persons.json").write_text(json.dumps({"images": images, "annotations": entries}))
    found = [{key: entry[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9} for entry in entries]
    file = root / "persons_found.json"
    file.write_text(json.dumps(found))
    return file


@pytest.mark.slow
def test_a_run_as_a_file(tmp_path: Path, capsys: Any) -> None:
    root = write_dots(tmp_path / "set", pictures=2)
    boxes = as_cut(root)  # annotated ones lose a pixel at the picture's edge, as COCO's authors cut them
    small = {"image_size": list(SIZE), "backbone": "none", "patch_size": [8, 8], "dim": 16, "depth": 2, "heads": 2}
    recipe = load_recipe(
        {
            "model": {"name": "sdpose_s_v1", "options": small},
            "data": {
                "root": str(root), "train_annotations": "annotations/train.json", "train_images": "pictures",
                "val_annotations": "annotations/persons.json", "val_images": "persons", "detections": None,
                "batch_size": 4, "workers": 0,
            },
            "schedule": {"epochs": 1, "milestones": [], "warmup_steps": 0},
            "evaluate": {"every": 1, "exits": [1]},
            "run": {"output": str(tmp_path / "run"), "device": "cpu", "progress": False},
        }
    )  # fmt: skip
    train(recipe)
    assert_average_is_exported(Path(recipe.run.output))
    file = tmp_path / "run.onnx"
    call = ["export", recipe.run.output, "--exit", "2", "--int8", "static", "--calibration-data", str(root / "persons")]
    assert main([*call, "--output", str(file)]) == 0
    assert "compared on the 4 calibration inputs" in capsys.readouterr().out
    words = read_words(file)
    assert json.loads(words["joints"])["names"][0] == "nose" and json.loads(words["input_size"]) == list(SIZE)

    run = open_exportable(Path(recipe.run.output))
    validation, joints = open_validation(replace(recipe.data, detections=boxes.name), SIZE), recipe.data.joint_set
    crops = PersonCrops(validation.persons, validation.images, joints, SIZE)
    (batch,) = crop_loader(crops, PictureBatches(validation.persons, 4, shuffle=False), 0)
    prepared = torch.cat([sample()[0] for sample in run.samples(root / "persons")])
    torch.testing.assert_close(prepared, prepare_images(batch["image"])[batch["person"].argsort()])
