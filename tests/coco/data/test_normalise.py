"""Files as annotation tools write them: whatever is odd in one, perfect predictions have AP 1, and all count."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pycocotools")

from cycledistill.integrations.coco.data.annotations import annotated_persons
from cycledistill.integrations.coco.data.coco_file.normalise import normalised
from cycledistill.integrations.coco.data.images import PoseDataError
from cycledistill.integrations.coco.data.joints import COCO
from cycledistill.integrations.coco.evaluation.average_precision import evaluate_poses, to_results
from cycledistill.integrations.coco.evaluation.ground_truth import load_ground_truth
from cycledistill.integrations.coco.evaluation.measure import predictions_of
from tests.coco.data.tool_files import SIZE, File, animals, every, file, measured, perfect, renumber, with_things


def unlabelled(**written: Any) -> Callable[[File], None]:
    """One more person in each picture, without joints, as this or that tool writes it."""

    def changed(data: File) -> None:
        for picture in data["images"]:
            entry = {"id": 50 + picture["id"], "image_id": picture["id"], "category_id": 1, "bbox": [500, 400, 50, 60]}
            data["annotations"].append({**entry, **written})

    return changed


CHANGES: dict[str, Callable[[File], object]] = {
    "as COCO": lambda data: None,
    "ids from 0": renumber(lambda own: own - 1),
    "ids as text": renumber(str),
    "ids as floats": renumber(float),
    "large ids": renumber(lambda own: 2**40 + own),
    "pictures from 0": renumber(lambda own: own - 1, annotations=False),
    "pictures by text": renumber(lambda own: f"IMG_{own}", annotations=False),
    "pictures by floats": renumber(float, annotations=False),
    "iscrowd null": every(lambda entry: entry.update(iscrowd=None)),
    "iscrowd false": every(lambda entry: entry.update(iscrowd=False)),
    "no iscrowd": every(lambda entry: entry.pop("iscrowd")),
    "no area": every(lambda entry: entry.pop("area")),
    "area null": every(lambda entry: entry.update(area=None)),
    "area 0": every(lambda entry: entry.update(area=0)),
    "no num_keypoints": every(lambda entry: entry.pop("num_keypoints")),
    "num_keypoints 0": every(lambda entry: entry.update(num_keypoints=0)),
    "num_keypoints wrong": every(lambda entry: entry.update(num_keypoints=3)),
    "num_keypoints null": every(lambda entry: entry.update(num_keypoints=None)),
    "no categories": lambda data: data.pop("categories"),
    "no names of joints": every(lambda each: each.pop("keypoints"), "categories"),
    "no category_id": every(lambda entry: entry.pop("category_id")),
    "category 0": lambda data: (
        every(lambda entry: entry.update(category_id=0))(data), data["categories"][0].update(id=0)),
    "category as text": lambda data: (
        every(lambda entry: entry.update(category_id="p"))(data), data["categories"][0].update(id="p")),
    "several categories": animals,
    "things beside": with_things,
    "no size": every(lambda each: (each.pop("width"), each.pop("height")), "images"),
    "size 0": every(lambda each: each.update(width=0, height=0), "images"),
    "size null": every(lambda each: each.update(width=None, height=None), "images"),
    "names in unicode": every(lambda each: each.update(file_name=f"日本/é {each['id']}.jpg"), "images"),
    "unlabelled, no keypoints": unlabelled(),
    "unlabelled, null": unlabelled(keypoints=None, num_keypoints=None),
    "unlabelled, empty": unlabelled(keypoints=[], num_keypoints=0),
    "unlabelled, zeros": unlabelled(keypoints=[0] * 51, num_keypoints=0),
    "unlabelled, miscounted": unlabelled(keypoints=[0] * 51, num_keypoints=17),
    "unlabelled, no box": unlabelled(bbox=None),
    "unlabelled, empty box": unlabelled(bbox=[]),
    "labelled, box of no size": unlabelled(bbox=[9, 9, 0, 0], keypoints=[9.0, 9.0, 2] * 17),
    "crowds": unlabelled(iscrowd=1, keypoints=[0] * 51, area=100),
    "crowds, true": unlabelled(iscrowd=True),
    "labelled crowds": unlabelled(iscrowd=1, keypoints=[520.0, 420.0, 2] * 17, num_keypoints=17),
    "other keys": every(lambda entry: entry.update(attributes={"a": [1]}, score=None, ignore=1, track="x")),
    "annotations of no picture's order": lambda data: data["annotations"].reverse(),
    "one person": lambda data: (data.update(annotations=data["annotations"][:1]), renumber(lambda own: 0)(data)),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_perfect_predictions_have_ap_one(what: str) -> None:
    data = file()
    CHANGES[what](data)
    before = copy.deepcopy(data)
    number, found = measured(data)
    assert (found["AP"], found["AR"]) == pytest.approx((1.0, 1.0)), found
    assert number == (1 if what == "one person" else 6)
    assert data == before  # what is given is left as it is


def test_a_number_of_persons_is_perfect_with_ids_from_0() -> None:
    """As it was found: .98 for 100 persons, as pycocotools reads id 0 as "not matched"."""
    data = file(50, 2)
    renumber(lambda own: own - 1)(data)
    assert measured(data)[1]["AP"] == pytest.approx(1.0)


def test_one_file_gives_the_same_numbers_however_it_is_written() -> None:
    """Imperfect predictions: the changes above that say the same do not move them."""

    def numbers(data: File) -> dict[str, float]:
        persons = annotated_persons(data, COCO, SIZE)
        rng = np.random.default_rng(1)
        poses = perfect(persons)
        for pose in poses.values():
            pose[:, :2] += rng.normal(0, 8, (17, 2))
        return evaluate_poses(load_ground_truth(data, COCO), to_results(predictions_of(poses, persons), COCO), COCO)

    want = numbers(file())
    assert 0.1 < want["AP"] < 0.95
    same = "ids from 0|ids as text|pictures from 0|pictures by text|iscrowd null|num_keypoints 0|several categories"
    for what in f"{same}|no category_id|unlabelled, null|crowds, true|things beside".split("|"):
        data = file()
        CHANGES[what](data)
        assert numbers(data) == want, what


def test_results_carry_the_files_own_ids() -> None:
    data = file()
    animals(data)
    renumber(lambda own: f"IMG_{own}", annotations=False)(data)
    persons = annotated_persons(data, COCO, SIZE)
    results = to_results(predictions_of(perfect(persons), persons), COCO)
    assert [entry["image_id"] for entry in results] == ["IMG_1"] * 2 + ["IMG_2"] * 2 + ["IMG_3"] * 2
    assert sorted(entry["category_id"] for entry in results) == [10, 11, 12, 13, 14, 15]


def test_an_ignored_person_neither_helps_nor_harms_who_finds_it() -> None:
    data = file()
    CHANGES["labelled, box of no size"](data)
    persons = annotated_persons(data, COCO, SIZE)
    results = to_results(predictions_of(perfect(persons), persons), COCO)
    found = {"image_id": 1, "category_id": 1, "keypoints": [9.0, 9.0, 1.0] * 17, "score": 2.0}
    assert evaluate_poses(load_ground_truth(data, COCO), [found, *results], COCO)["AP"] == pytest.approx(1.0)
    stray = {**found, "keypoints": [600.0, 300.0, 1.0] * 17}
    assert evaluate_poses(load_ground_truth(data, COCO), [stray, *results], COCO)["AP"] < 1


def test_who_is_left_out_is_counted_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    data = file()
    for what in ("crowds", "things beside"):
        CHANGES[what](data)
    with caplog.at_level(logging.INFO):
        found = normalised(data, COCO)
    assert found.left_out == {"a crowd": 3, "of another category": 2}
    assert "3 of 11 annotations left out: a crowd" in caplog.text
    assert normalised(found, COCO) is found


def test_the_same_image_id_twice_is_refused() -> None:
    data = file()
    data["images"][1]["id"] = 1.0
    with pytest.raises(
        PoseDataError, match=r"image 1.0 is there twice \('1.jpg' and '2.jpg'\): ids of images must differ"
    ):
        annotated_persons(data, COCO, SIZE)
