"""AP of pictures that count several times is pycocotools' own of annotations that hold them so often."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from cycledistill.integrations.coco.data.joints import COCO
from cycledistill.integrations.coco.evaluation.average_precision import evaluate_poses
from cycledistill.integrations.coco.evaluation.ground_truth import load_ground_truth
from cycledistill.integrations.coco.evaluation.protocol import coco_numbers
from cycledistill.integrations.coco.evaluation.uncertainty import PictureAP, ap_interval

IMAGES, PERSONS = 12, 3


def scene(seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotated people, and poses of them: some missed, some invented, some twice, one picture without people."""
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for index in range(IMAGES * PERSONS):
        image = index // PERSONS + 1
        points = np.array([300.0 * (index % PERSONS), 50.0]) + rng.uniform(10, 190, (len(COCO), 2))
        flat = np.concatenate([points, np.full((len(COCO), 1), 2.0)], 1).ravel().tolist()
        box = [300.0 * (index % PERSONS), 50.0, 200.0, 200.0]
        if image < IMAGES:
            annotations.append(
                {"id": index + 1, "image_id": image, "category_id": 1, "keypoints": flat, "bbox": box,
                 "area": 40_000.0, "num_keypoints": len(COCO), "iscrowd": int(index == 4)}
            )  # fmt: skip
        for _ in range(rng.integers(0, 3)):
            moved = points + rng.normal(0, rng.choice([2, 12, 25, 90]), points.shape)
            pose = np.concatenate([moved, np.ones((len(COCO), 1))], 1).ravel().tolist()
            results.append({"image_id": image, "category_id": 1, "keypoints": pose, "score": float(rng.random())})
    return {
        "images": [{"id": i + 1} for i in range(IMAGES)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }, results


def several(often: list[int], truth: dict[str, Any], results: list[dict[str, Any]]) -> tuple[Any, list[dict[str, Any]]]:
    """The same with each picture so many times, under new ids."""
    data: dict[str, Any] = {**truth, "images": [], "annotations": []}
    found = []
    for image, times in enumerate(often, 1):
        for _ in range(times):
            number = len(data["images"]) + 1
            data["images"].append({"id": number})
            for each in (each for each in truth["annotations"] if each["image_id"] == image):
                data["annotations"].append({**each, "id": len(data["annotations"]) + 1, "image_id": number})
            found += [{**each, "image_id": number} for each in results if each["image_id"] == image]
    return data, found


@pytest.mark.parametrize("often", [[1] * IMAGES, [0, 3, 1, 0, 2, 1, 1, 0, 2, 0, 1, 1], [0] * 10 + [6, 6]], ids=str)
def test_pictures_that_count_several_times(often: list[int]) -> None:
    truth, results = scene()
    index = load_ground_truth(copy.deepcopy(truth), COCO)
    measure = PictureAP(index, results, COCO.sigmas, sorted(index.imgs))
    data, found = several(often, truth, results)
    theirs = load_ground_truth(data, COCO)
    expected = coco_numbers(theirs, found, COCO.sigmas, sorted(theirs.imgs), faster=False)[0]
    assert 0.01 < expected < 0.9
    assert measure(np.array(often, dtype=float)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow
def test_the_interval_holds_ap_and_shrinks_with_more_pictures() -> None:
    truth, results = scene()
    widths = []
    for times in (1, 9):
        data, found = several([times] * IMAGES, truth, results)
        numbers = evaluate_poses(load_ground_truth(data, COCO), found, COCO, interval=True)
        low, high = numbers["AP_interval"]
        assert low < numbers["AP"] < high and numbers["images"] == times * IMAGES
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(3, rel=0.35), "with the root of the number"


def test_too_little_for_an_interval() -> None:
    truth, results = scene()
    index = load_ground_truth(truth, COCO)
    images = sorted(index.imgs)
    assert ap_interval(index, results, COCO.sigmas, images[:9]) is None
    assert ap_interval(index, [], COCO.sigmas, images) is None
    far = [{**each, "keypoints": [9e3] * 3 * len(COCO)} for each in results]
    assert ap_interval(index, far, COCO.sigmas, images) is None, "0 in every picture is no certainty"
