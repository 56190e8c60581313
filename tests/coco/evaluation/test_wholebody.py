"""COCO-WholeBody's five parts and the whole, against the evaluation of its authors."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

from cycledistill.integrations.coco.data.annotations import annotated_persons
from cycledistill.integrations.coco.data.images import PoseDataError
from cycledistill.integrations.coco.data.joints import (
    FACE,
    HAND,
    JOINT_SETS,
    WHOLEBODY,
    JointError,
    split_result,
    with_all_joints,
)
from cycledistill.integrations.coco.evaluation import protocol
from cycledistill.integrations.coco.evaluation.average_precision import evaluate_poses
from cycledistill.integrations.coco.evaluation.ground_truth import load_ground_truth
from cycledistill.integrations.coco.evaluation.parts import with_area
from tests.coco.evaluation.wholebody import FIELDS, wholebody_file

# What xtcocotools 1.14.3, the evaluation of COCO-WholeBody's authors, says of wholebody_file(): AP AP50 AP75 APm APl AR
# AR50 AR75 ARm ARl of the whole, and AP and AR of the parts.
WHOLE = (0.2578280327, 0.7241558771, 0.2147753237, 0.168974326, 0.4270846315)
WHOLE += (0.4434782609, 0.8260869565, 0.4782608696, 0.3625, 0.4866666667)
PARTS = {
    "body": (0.6536849289, 0.7117647059),
    "feet": (0.707812942, 0.7588235294),
    "face": (0.1771805752, 0.3941176471),
    "lefthand": (0.2310231023, 0.3888888889),
    "righthand": (0.2665016502, 0.4),
}


def joined(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**each, "keypoints": [number for field in FIELDS for number in each[field]]} for each in results]


@pytest.mark.parametrize("faster", [False, True])
def test_the_numbers_are_those_of_the_authors_evaluation(faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if faster:
        pytest.importorskip("faster_coco_eval")
    monkeypatch.setattr(protocol, "has_faster", lambda: faster)
    annotations, results = wholebody_file()
    before = copy.deepcopy((annotations, results))
    truth = load_ground_truth(annotations, WHOLEBODY)
    found = evaluate_poses(truth, joined(results), WHOLEBODY)
    assert evaluate_poses(truth, results, WHOLEBODY) == found  # as its own evaluation takes them
    assert [*found.values()][:10] == pytest.approx(WHOLE, abs=1e-9)
    for name, (precision, recall) in PARTS.items():
        assert (found[f"AP{name}"], found[f"AR{name}"]) == pytest.approx((precision, recall), abs=1e-9), name
    assert (annotations, results) == before


def test_perfect_predictions_are_perfect_in_every_part_and_absent_parts_say_so() -> None:
    annotations, _ = wholebody_file(persons=8)
    for entry in annotations["annotations"]:
        entry["iscrowd"], entry["foot_kpts"] = 0, [0] * 18
    truth = load_ground_truth(annotations, WHOLEBODY)
    perfect = [
        {
            "image_id": truth.annotations.image_ids[each["image_id"] - 1],
            "category_id": 1,
            "keypoints": each["keypoints"],
            "score": 1.0,
        }
        for each in truth.dataset["annotations"]
    ]
    found = evaluate_poses(truth, perfect, WHOLEBODY)
    assert found.pop("APfeet") == found.pop("ARfeet") == -1
    for size in ("m", "l"):  # there may be nobody of a size
        assert found.pop(f"AP{size}") in (-1, 1) and found.pop(f"AR{size}") in (-1, 1)
    assert [*found.values()] == pytest.approx([1.0] * len(found))


def test_the_joints_are_those_of_the_fields_in_their_order_and_invalid_ones_are_unlabelled() -> None:
    annotations, results = wholebody_file(persons=3)
    entry = annotations["annotations"][1]
    entry |= {"face_kpts": [5, 5, 2] * 68, "face_valid": False}
    persons = annotated_persons(annotations, WHOLEBODY, (64, 48))
    assert persons[1].visible[23:91].sum() == 0
    flat = np.array([number for field in FIELDS for number in entry[field]]).reshape(-1, 3)
    keep = np.r_[0:23, 91:133]
    np.testing.assert_allclose(persons[1].joints[keep], flat[keep, :2], rtol=1e-6)
    np.testing.assert_array_equal(persons[1].visible[keep], flat[keep, 2] > 0)
    whole = joined(results)[0]
    assert {field: split_result(whole, WHOLEBODY)[field] for field in FIELDS} == {
        field: results[0][field] for field in FIELDS
    }
    assert split_result(whole, HAND) is whole
    again = with_all_joints(with_all_joints(annotations, WHOLEBODY), WHOLEBODY)
    assert again["annotations"] == with_all_joints(annotations, WHOLEBODY)["annotations"]


def test_hands_and_faces_are_instances_in_their_own_boxes() -> None:
    annotations, _ = wholebody_file(persons=6)
    for entry in annotations["annotations"]:
        entry["iscrowd"] = 0
    hands = annotated_persons(annotations, HAND, (64, 64))
    wanted = [
        entry[f"{side}hand_box"][2:]
        for entry in annotations["annotations"]
        for side in ("left", "right")
        if entry[f"{side}hand_valid"]
    ]
    assert [hand.box_side for hand in hands] == [max(size) for size in wanted]
    assert len(load_ground_truth(annotations, HAND).dataset["annotations"]) == len(wanted)
    faces = annotated_persons(annotations, FACE, (64, 64))
    assert len(faces) == sum(entry["face_valid"] for entry in annotations["annotations"]) and len(FACE) == 68
    del annotations["annotations"][0]["lefthand_box"]
    annotations["annotations"][0]["lefthand_valid"] = True
    with pytest.raises(JointError, match="annotation 1 has no lefthand_box"):
        annotated_persons(annotations, HAND, (64, 64))


def test_a_field_that_is_missing_or_too_short_is_named() -> None:
    annotations, _ = wholebody_file(persons=3)
    del annotations["annotations"][1]["foot_kpts"]
    with pytest.raises(JointError, match=r"annotation 2: foot_kpts holds no list; 18 are expected"):
        annotated_persons(annotations, WHOLEBODY, (64, 48))
    annotations["annotations"][1]["foot_kpts"] = [1, 2, 2]
    with pytest.raises(JointError, match=r"annotation 2: foot_kpts holds 3 numbers; 18"):
        load_ground_truth(annotations, WHOLEBODY)


def test_their_files_name_the_joints_of_the_body_alone() -> None:
    annotations, _ = wholebody_file(persons=1)
    for joints in (WHOLEBODY, HAND, FACE):
        assert len(load_ground_truth(annotations, joints).annotations.category_ids) == 1
    annotations["categories"][0]["keypoints"] = ["a", "b"]
    with pytest.raises(PoseDataError, match=r"has 2 joints \(a, b, ...\), and wholebody has 133"):
        load_ground_truth(annotations, WHOLEBODY)


def test_other_files_are_taken_as_they_are() -> None:
    annotations, results = wholebody_file(persons=3)
    assert with_all_joints(annotations, JOINT_SETS["coco"]) is annotations
    assert with_area(results, JOINT_SETS["coco"]) == json.loads(json.dumps(results))
