"""Boxes and joints in another unit or form are refused with a guess, or warned of."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pycocotools")

from cycledistill.integrations.coco.data.annotations import annotated_persons, detected_persons
from cycledistill.integrations.coco.data.coco_file.normalise import normalised
from cycledistill.integrations.coco.data.images import PoseDataError
from cycledistill.integrations.coco.data.joints import COCO
from tests.coco.data.tool_files import SIZE, File, detections, every, file


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
