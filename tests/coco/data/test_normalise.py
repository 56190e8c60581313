"""Files as annotation tools write them: whatever is odd in one, perfect predictions have AP 1, and all count."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pycocotools")

from cycledistill.integrations.coco.data.annotations import Person, annotated_persons, detected_persons
from cycledistill.integrations.coco.data.coco_file.normalise import normalised
from cycledistill.integrations.coco.data.images import PoseDataError
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


def detections(data: File, **changed: Any) -> list[dict[str, Any]]:
    keys = ("image_id", "category_id", "bbox")
    return [{key: entry[key] for key in keys} | {"score": 0.5} | changed for entry in data["annotations"]]


@pytest.mark.parametrize("category", [1, 1.0, "1", "person", None], ids=repr)
def test_detections_of_the_category_count_however_it_is_called(category: Any) -> None:
    data = file()
    found = detected_persons(detections(data, category_id=category), data, COCO, SIZE)
    assert [(person.image_id, person.category_id, person.size) for person in found[:3]] == [
        (1, 1, (640, 480)), (1, 1, (640, 480)), (2, 1, (640, 480))]  # fmt: skip


def test_detections_filtered_to_nothing_are_refused_with_the_reasons() -> None:
    data = file()
    with pytest.raises(PoseDataError, match=r"none of 6 detections can be used: 6 of category 0 \(what counts: 1\)"):
        detected_persons(detections(data, category_id=0), data, COCO, SIZE)
    mixed = [*detections(data, score=0.1), *detections(data, category_id="dog")]
    with pytest.raises(PoseDataError, match=r"none of 12 .*: 6 that score below 0.3, 6 of category 'dog'"):
        detected_persons(mixed, data, COCO, SIZE, 0.3)
    assert len(detected_persons([*mixed, *detections(data)], data, COCO, SIZE, 0.3)) == 6
    animals(data)
    assert {person.category_id for person in detected_persons(detections(data), data, COCO, SIZE)} == set(range(10, 16))


def test_detections_for_a_list_of_pictures_alone() -> None:
    """COCO's test-dev is published without annotations."""
    data = file()
    found = detections(data)
    del data["annotations"]
    assert [person.file_name for person in detected_persons(found, data, COCO, SIZE)][:3] == ["1.jpg", "1.jpg", "2.jpg"]


@pytest.mark.parametrize(
    ("form", "guess"),
    [
        (lambda x, y, w, h: [x / 640, y / 480, w / 640, h / 480], "look like fractions of the picture"),
        (lambda x, y, w, h: [x, y, x + w, y + h], "look like left, top, right, bottom"),
        (lambda x, y, w, h: [x * 2 + 300, y * 2 + 300, w * 2, h * 2], "look like boxes in pictures of another size"),
    ],
    ids=["fractions", "corners", "another size"],
)
def test_boxes_of_another_form_are_refused_with_the_guess(form: Any, guess: str) -> None:
    data = file()
    for entry in data["annotations"]:
        entry["bbox"] = [330.0, 180.0, 200.0, 250.0]
    found = detections(data)
    assert len(detected_persons(found, data, COCO, SIZE)) == 6
    for each in found:
        each["bbox"] = form(*each["bbox"])
    with pytest.raises(PoseDataError, match=guess):
        detected_persons(found, data, COCO, SIZE)
    if "another size" in guess:
        return
    for entry, each in zip(data["annotations"], found, strict=True):
        entry["bbox"] = each["bbox"]
    with pytest.raises(PoseDataError, match=f"bbox of annotations: .*{guess}"):
        annotated_persons(data, COCO, SIZE)


def many() -> File:
    """Sixty persons, half of them in the lower right of their picture, joints in the middle of their boxes."""
    data, rng = file(pictures=30), np.random.default_rng(3)
    for number, entry in enumerate(data["annotations"]):
        x, y, side = (330, 260, 180) if number % 2 else (110, 120, 150)
        entry["bbox"] = [x, y, side, side]
        points = np.concatenate([[x, y] + rng.uniform(0.02, 0.98, (17, 2)) * side, np.full((17, 1), 2.0)], 1)
        entry["keypoints"] = points.ravel().tolist()
    return data


def fractions(x: float, y: float, w: float, h: float) -> list[float]:
    return [x / 640, y / 480, w / 640, h / 480]


def percents(x: float, y: float, w: float, h: float) -> list[float]:
    return [100 * value for value in fractions(x, y, w, h)]


def corners(x: float, y: float, w: float, h: float) -> list[float]:
    return [x, y, x + w, y + h]


@pytest.mark.parametrize(
    ("form", "odd", "guess"),
    [(fractions, [10, 10, 50, 90], "59 of 60 boxes is above 1"), (corners, [-90, 9, 40, 50], "59 fit as two corners")],
)
def test_one_odd_box_does_not_hide_what_the_others_are(form: Any, odd: list[float], guess: str) -> None:
    data = many()
    for entry in data["annotations"]:
        entry["bbox"] = form(*entry["bbox"])
    data["annotations"][0]["bbox"] = odd
    found = detections(data)
    with pytest.raises(PoseDataError, match=guess):
        annotated_persons(data, COCO, SIZE)
    with pytest.raises(PoseDataError, match=f"detections: .*{guess}"):
        detected_persons(found, many(), COCO, SIZE)


def joints_by(form: Callable[..., list[float]]) -> Callable[[Any], None]:
    def changed(entry: Any) -> None:
        points = np.reshape(entry["keypoints"], (-1, 3))
        entry["keypoints"] = [value for x, y, seen in points.tolist() for value in (*form(x, y, 0, 0)[:2], seen)]

    return changed


@pytest.mark.parametrize(
    ("change", "sizes", "guess"),
    [
        (joints_by(fractions), True, "as where the joints are fractions of the picture"),
        (joints_by(fractions), False, "as where the joints are fractions of the picture"),
        (joints_by(percents), True, r"as where the joints are percents .*, divided by 100\)"),
        (lambda entry: entry.update(bbox=percents(*entry["bbox"])), True, "as where the boxes are percents"),
        (lambda entry: entry.update(bbox=corners(*entry["bbox"])), False, "nearly all hold their joints.* two corners"),
        (lambda entry: entry.update(bbox=[3000, 3000, 90, 90]), False, "nearly all .* are far outside their box"),
        (lambda entry: entry.update(bbox=[0, 0, 0, 0]), True, "none of 60 boxes has a size"),
    ],
    ids=["joint fractions", "without sizes", "joint percents", "box percents", "corners", "elsewhere", "no size"],
)
def test_joints_and_boxes_in_two_units_are_refused(change: Callable[[Any], None], sizes: bool, guess: str) -> None:
    data = many()
    if not sizes:
        every(lambda picture: [picture.pop(key) for key in ("width", "height")], "images")(data)
    assert len(annotated_persons(data, COCO, SIZE)) == 60
    change(data["annotations"][7])  # one is not all
    assert len(normalised(data, COCO).data["annotations"]) == 60
    for entry in data["annotations"][:7] + data["annotations"][8:]:
        change(entry)
    with pytest.raises(PoseDataError, match=guess):
        annotated_persons(data, COCO, SIZE)


def test_what_may_be_another_unit_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    data = many()
    every(lambda entry: entry.update(bbox=[value * 2 for value in entry["bbox"]]))(data)
    with caplog.at_level(logging.WARNING):
        normalised(data, COCO)
    assert "of the labelled joints are outside their box (a joint at" in caplog.text
    data = many()
    every(lambda entry: entry.update(bbox=percents(*entry["bbox"])))(data)
    every(joints_by(percents))(data)
    with caplog.at_level(logging.WARNING):
        normalised(data, COCO)
    assert "all 60 boxes and their joints are in the first 100 x 100 pixels" in caplog.text


def test_boxes_that_reach_over_the_border_are_taken() -> None:
    data = file()
    for each in ([560, 400, 100, 150], [-50, -20, 200, 300], [0, 0, 640, 480], [600, 10, 39, 460], [0, 0, 700, 600]):
        found = detections(data, bbox=each)
        assert len(detected_persons(found, data, COCO, SIZE)) == 6, each


def test_detections_outside_their_picture_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    data = file()
    found = detections(data)
    found[0]["bbox"], found[1]["bbox"] = [700, 10, 50, 50], [-60, 10, 50, 50]
    with caplog.at_level(logging.INFO):
        assert len(detected_persons(found, data, COCO, SIZE)) == 4
    assert "2 of 6 detections left out: outside their picture" in caplog.text
