"""Categories of a file: which are measured, and how detections name them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("pycocotools")

from cycledistill.integrations.coco.data.annotations import annotated_persons, detected_persons
from cycledistill.integrations.coco.data.images import PoseDataError
from cycledistill.integrations.coco.data.joints import COCO
from cycledistill.integrations.coco.evaluation.average_precision import evaluate_poses, to_results
from cycledistill.integrations.coco.evaluation.ground_truth import load_ground_truth
from cycledistill.integrations.coco.evaluation.measure import predictions_of
from tests.coco.data.tool_files import NAMES, SIZE, animals, detections, every, file, measured, perfect, with_things


def test_categories_that_are_asked_for_count_alone() -> None:
    data = file()
    animals(data)
    for wanted in ([11, 14], ["animal 1", "animal 4"], ["11", 14.0]):
        number, found = measured(data, categories=wanted)
        assert number == 2 and found["AP"] == pytest.approx(1.0)
        assert [person.category_id for person in annotated_persons(data, COCO, SIZE, wanted)] == [11, 14]
    with pytest.raises(
        PoseDataError, match=r"categories \['horse'\]: the file has no 'horse', but 10 'animal 0' with 17"
    ):
        annotated_persons(data, COCO, SIZE, ["horse"])
    with_things(data)
    with pytest.raises(PoseDataError, match="4 'hand': it has 2 joints .*, and coco has 17"):
        annotated_persons(data, COCO, SIZE, ["hand"])
    data["categories"] = [{"id": 4, "name": "hand", "keypoints": ["wrist", "tip"]}]
    data["annotations"] = data["annotations"][-1:]
    with pytest.raises(
        PoseDataError, match="no category of the file has the 17 joints of coco: 4 'hand' with 2 joints"
    ):
        annotated_persons(data, COCO, SIZE)


def test_by_category_the_numbers_are_the_mean_of_the_categories() -> None:
    data = file()
    animals(data)
    persons = annotated_persons(data, COCO, SIZE)
    poses = perfect(persons)
    for index in (0, 3):  # two of six are lost
        poses[index][:, :2] += 500
    results = to_results(predictions_of(poses, persons), COCO)
    truth = load_ground_truth(data, COCO)
    each = [
        evaluate_poses(load_ground_truth(data, COCO, [own]), [r for r in results if r["category_id"] == own], COCO)[
            "AP"
        ]
        for own in range(10, 16)
    ]
    assert sorted(each) == pytest.approx([0, 0, 1, 1, 1, 1])
    assert evaluate_poses(truth, results, COCO, by_category=True)["AP"] == pytest.approx(np.mean(each))
    with pytest.raises(ValueError, match=r"category_id 1; the annotations have \[10, 11"):
        evaluate_poses(truth, [{**results[0], "category_id": 1}], COCO, by_category=True)


def test_poses_of_two_categories_are_duplicates_unless_categories_are_measured() -> None:
    data = file(1, 1)
    animals(data)
    persons = annotated_persons(data, COCO, SIZE) * 2
    predictions = predictions_of(perfect(persons), persons)
    other = [predictions[0], predictions[1].__class__(**{**vars(predictions[1]), "category_id": 11})]
    assert len(to_results(other, COCO)) == 1
    assert len(to_results(other, COCO, by_category=True)) == 2
    assert len(to_results(predictions, COCO, by_category=True)) == 1


def test_the_same_category_id_twice_is_refused() -> None:
    data = file()
    data["categories"].append({"id": 1, "name": "crab", "keypoints": NAMES})
    with pytest.raises(PoseDataError, match="category 1 is there twice \\('person' and 'crab'\\): ids of"):
        annotated_persons(data, COCO, SIZE)


@pytest.mark.parametrize("given", ["1", 1.0, "person"])
def test_annotations_give_their_category_as_detections_do(given: Any) -> None:
    data = file()
    every(lambda entry: entry.update(category_id=given))(data)
    assert [person.category_id for person in annotated_persons(data, COCO, SIZE, categories=["person"])] == [1] * 6


@pytest.mark.parametrize("category", [1, 1.0, "1", "person", None], ids=repr)
def test_detections_of_the_category_count_however_it_is_called(category: Any) -> None:
    data = file()
    found = detected_persons(detections(data, category_id=category), data, COCO, SIZE)
    assert [(person.image_id, person.category_id, person.size) for person in found[:3]] == [
        (1, 1, (640, 480)), (1, 1, (640, 480)), (2, 1, (640, 480))]  # fmt: skip
