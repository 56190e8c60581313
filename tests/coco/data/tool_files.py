"""Files in COCO's form, changed as annotation tools write them, and perfect predictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pycocotools")

from cycledistill.integrations.coco.data.annotations import Person, annotated_persons
from cycledistill.integrations.coco.data.joints import COCO
from cycledistill.integrations.coco.evaluation.average_precision import evaluate_poses, to_results
from cycledistill.integrations.coco.evaluation.ground_truth import load_ground_truth
from cycledistill.integrations.coco.evaluation.measure import predictions_of

SIZE = (256, 192)
NAMES = list(COCO.names)
File = dict[str, Any]


def file(pictures: int = 3, persons: int = 2) -> File:
    """Persons far apart, of different sizes, with every key that COCO's own files have."""
    rng = np.random.default_rng(0)
    entries = []
    for index in range(pictures * persons):
        corner, side = np.array([300.0 * (index % persons), 20.0]), float(rng.uniform(60, 250))
        points = np.concatenate([corner + rng.uniform(5, side - 5, (17, 2)), rng.integers(0, 3, (17, 1))], 1)
        points[0, 2] = 2
        entries.append(
            {
                "id": index + 1,
                "image_id": index // persons + 1,
                "category_id": 1,
                "bbox": [*corner.tolist(), side, side],
                "area": side * side / 2,
                "iscrowd": 0,
                "num_keypoints": int((points[:, 2] > 0).sum()),
                "keypoints": points.ravel().tolist(),
                "segmentation": [[1.0, 2.0, 3.0]],
            }
        )
    images = [{"id": n + 1, "file_name": f"{n + 1}.jpg", "width": 640, "height": 480} for n in range(pictures)]
    return {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "person", "keypoints": NAMES}]}


def perfect(persons: list[Person]) -> dict[int, Any]:
    """What a perfect model predicts: the labels; unlabelled joints anywhere."""
    return {i: np.concatenate([p.joints, np.ones((17, 1), np.float32)], 1) for i, p in enumerate(persons)}


def measured(data: File, **options: Any) -> tuple[int, dict[str, float]]:
    persons = annotated_persons(data, COCO, SIZE, **options)
    results = to_results(predictions_of(perfect(persons), persons), COCO)
    json.dumps(results)  # as they are written
    own = {picture["id"] for picture in data["images"]}
    assert all(entry["image_id"] in own for entry in results)
    truth = load_ground_truth(data, COCO, **options)
    assert len(truth.annotations.counted()) == len(persons)  # who is trained on is measured
    return len(persons), evaluate_poses(truth, results, COCO)


def every(change: Callable[[Any], object], which: str = "annotations") -> Callable[[File], None]:
    """A change of every entry."""

    def changed(data: File) -> None:
        for entry in data[which]:
            change(entry)

    return changed


def renumber(convert: Callable[[int], Any], annotations: bool = True) -> Callable[[File], None]:
    """Other ids of the annotations, or of the pictures."""

    def changed(data: File) -> None:
        for entry in data["annotations"]:
            key = "id" if annotations else "image_id"
            entry[key] = convert(entry[key])
        for picture in data["images"] if not annotations else ():
            picture["id"] = convert(picture["id"])

    return changed


def animals(data: File) -> None:
    """As AP-10K: a category for each kind of animal, all with the same joints."""
    data["categories"] = [{"id": 10 + n, "name": f"animal {n}", "keypoints": NAMES} for n in range(6)]
    for number, entry in enumerate(data["annotations"]):
        entry["category_id"] = 10 + number


def with_things(data: File) -> None:
    """Boxes of things without joints beside the persons, as the whole of COCO has."""
    data["categories"].append({"id": 3, "name": "car"})
    data["categories"].append({"id": 4, "name": "hand", "keypoints": ["wrist", "tip"]})
    box = {"bbox": [1.0, 1.0, 9.0, 9.0], "area": 81.0, "iscrowd": 0}
    data["annotations"].append({"id": 100, "image_id": 1, "category_id": 3, **box})
    data["annotations"].append({"id": 101, "image_id": 1, "category_id": 4, "keypoints": [5.0, 5.0, 2.0] * 2, **box})


def detections(data: File, **changed: Any) -> list[dict[str, Any]]:
    keys = ("image_id", "category_id", "bbox")
    return [{key: entry[key] for key in keys} | {"score": 0.5} | changed for entry in data["annotations"]]
