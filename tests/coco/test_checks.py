"""Numbers that are none never score, and weights of another network are told apart although they fit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from cycledistill.integrations.coco import create_pose_model
from cycledistill.integrations.coco.data.annotations import annotated_persons
from cycledistill.integrations.coco.data.detections import detection_entries
from cycledistill.integrations.coco.data.images import PoseDataError
from cycledistill.integrations.coco.data.joints import COCO
from cycledistill.integrations.coco.evaluation.average_precision import evaluate_poses
from cycledistill.integrations.coco.evaluation.decode import decode_heatmaps
from cycledistill.integrations.coco.evaluation.ground_truth import load_ground_truth
from cycledistill.integrations.coco.weights.loading import load_pose_weights, save_pose_weights
from cycledistill.recipes.errors import CheckpointError

NAN = float("nan")


def annotations() -> dict[str, Any]:
    keypoints = [value for joint in range(17) for value in (10.0 + joint, 20.0 + 2 * joint, 2)]
    person = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 50, 80], "area": 2000.0, "keypoints": keypoints}
    return {"images": [{"id": 1, "file_name": "a.jpg", "width": 90, "height": 90}], "annotations": [person]}


def result(value: float, score: float = 1.0) -> list[dict[str, Any]]:
    return [{"image_id": 1, "category_id": 1, "keypoints": [value] * 51, "score": score}]


@pytest.mark.parametrize(("value", "score"), [(NAN, 1.0), (float("inf"), 1.0), (3.0, NAN)])
def test_poses_that_are_no_numbers_are_refused_not_scored(value: float, score: float) -> None:
    truth = load_ground_truth(annotations(), COCO)
    assert evaluate_poses(truth, result(3.0), COCO)["AP"] < 1
    with pytest.raises(ValueError, match="not finite"):
        evaluate_poses(truth, result(value, score), COCO)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a["annotations"][0].update(bbox=[1, 2, NAN, 4]), "bbox"),
        (lambda a: a["annotations"][0].update(bbox=["1", 2, 3, 4]), "bbox"),
        (lambda a: a["annotations"][0].pop("bbox"), "no 'bbox'"),
        (lambda a: a["annotations"][0].update(area="big"), "area"),
        (lambda a: a["annotations"][0].update(keypoints={"nose": [1, 2]}), "keypoints"),
        (lambda a: a["annotations"][0]["keypoints"].__setitem__(0, NAN), "finite"),
        (lambda a: a["annotations"][0].pop("image_id"), "'image_id'"),
        (lambda a: a["annotations"][0].pop("id"), "'id'"),
        (lambda a: a["annotations"].append(copy.deepcopy(a["annotations"][0])), "twice"),
        (lambda a: a["images"][0].pop("id"), "'id'"),
        (lambda a: a["annotations"][0].update(image_id=9), "not listed"),
    ],
)
def test_annotations_are_checked_entry_by_entry(change: Any, message: str) -> None:
    broken = annotations()
    change(broken)
    for read in (lambda a: load_ground_truth(a, COCO), lambda a: annotated_persons(a, COCO, (256, 192))):
        with pytest.raises(ValueError, match=message):
            read(broken)
    with pytest.raises(PoseDataError, match="a COCO keypoint file"):
        load_ground_truth([], COCO)  # type: ignore[arg-type]


def test_truth_without_anybody_labelled_and_pictures_without_a_name() -> None:
    empty, nameless = annotations(), annotations()
    empty["annotations"][0]["keypoints"] = []
    with pytest.raises(ValueError, match="none of 1 annotations can be used: {'no labelled joint': 1}"):
        load_ground_truth(empty, COCO)
    del nameless["images"][0]["file_name"]
    with pytest.raises(PoseDataError, match="'file_name'"):
        annotated_persons(nameless, COCO, (256, 192))


@pytest.mark.parametrize("entry", [{"bbox": [1, 1, 5, NAN]}, {"bbox": "box"}, {"bbox": None}, {"score": NAN}])
def test_detections_are_numbers(entry: dict[str, Any]) -> None:
    with pytest.raises(PoseDataError, match="finite numbers"):
        list(detection_entries([{"image_id": 1, "bbox": [1, 1, 5, 5], "score": 0.5, **entry}]))


def test_flat_heatmaps_decode_to_finite_places() -> None:
    maps = torch.full((1, 2, 16, 12), 1e-30)
    maps[0, 0, 8, 6] += 1e-36
    assert torch.isfinite(decode_heatmaps(maps)[0]).all()


def test_weights_of_another_attention_scale_or_heads_are_refused(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"image_size": (64, 48), "depth": 2, "dim": 24}
    file = tmp_path / "a.safetensors"
    save_pose_weights(create_pose_model("tokenpose_s_v1_original", heads=2, **sizes), file)
    load_pose_weights(create_pose_model("tokenpose_s_v1_original", heads=2, **sizes), file)
    with pytest.raises(CheckpointError, match="scale='dim' there"):
        load_pose_weights(create_pose_model("tokenpose_s_v1", heads=2, **sizes), file)
    with pytest.raises(CheckpointError, match="heads=2 there, 4 here"):
        load_pose_weights(create_pose_model("tokenpose_s_v1_original", heads=4, **sizes), file)
