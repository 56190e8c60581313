"""Boxes from files: each form by each kind of name, and what fits no picture."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO as COCOFile

from cycledistill.integrations.coco.data.coco_file.normalise import normalised
from cycledistill.integrations.coco.data.images import PoseDataError
from cycledistill.integrations.coco.data.joints import COCO, JointSet
from cycledistill.integrations.coco.prediction.box_files import read_boxes
from cycledistill.integrations.coco.prediction.boxes import FileBoxes
from cycledistill.integrations.coco.prediction.sources import Turned, open_source
from cycledistill.integrations.coco.prediction.stream import predict_stream
from cycledistill.recipes.prediction.frames import Frame
from cycledistill.recipes.prediction.sources import PictureFiles

BOX, OTHER = [10.0, 20.0, 30.0, 40.0], [1.0, 2.0, 3.0, 4.0]
FRAME = Frame("day 1/000042.jpg", 42, np.zeros((90, 120, 3), np.uint8))


def boxes_of(data: Any, tmp_path: Path, threshold: float = 0.0) -> FileBoxes:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(data))
    return read_boxes(path, threshold)


@pytest.mark.parametrize("name", [42, "42", "000042.jpg", "day 1/000042.jpg"])
def test_a_picture_is_known_by_its_names_and_its_number(tmp_path: Path, name: Any) -> None:
    results = [{"image_id": name, "bbox": BOX, "score": 0.5}, {"image_id": name, "bbox": OTHER, "score": 0.2}]
    found = boxes_of(results, tmp_path)(FRAME)
    assert found.boxes.tolist() == [BOX, OTHER] and found.scores.tolist() == [0.5, 0.2]
    assert boxes_of(results, tmp_path, 0.5)(FRAME).boxes.tolist() == [BOX]
    by_name = boxes_of({str(name): [[*BOX, 0.5], OTHER], "else": [OTHER]}, tmp_path)(FRAME)
    assert by_name.boxes.tolist() == [BOX, OTHER] and by_name.scores.tolist() == [0.5, 1.0]
    with_file = boxes_of([{"file_name": str(name), "bbox": BOX, "score": 0.5}], tmp_path)
    assert with_file(FRAME).boxes.tolist() == [BOX] and with_file.image_id(FRAME) == 42


def annotations(**image: Any) -> dict[str, Any]:
    people = [{"id": 1, "image_id": 7, "bbox": BOX}, {"id": 2, "image_id": 7, "bbox": OTHER, "iscrowd": 1}]
    return {"images": [{"id": 7, "file_name": "000042.jpg", **image}], "annotations": people}


def test_annotations_give_boxes_and_ids(tmp_path: Path) -> None:
    found = boxes_of(annotations(width=120, height=90), tmp_path)
    assert found(FRAME).boxes.tolist() == [BOX] and found.image_id(FRAME) == 7
    turned = boxes_of(annotations(width=90, height=120), tmp_path)
    with pytest.raises(PoseDataError, match=r"000042.jpg is 120 x 90 pixels, and in .* 90 x 120: .*turned \(EXIF\)"):
        turned(FRAME)


def test_annotations_say_which_way_a_picture_is_up(tmp_path: Path, finder: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (120, 90)).save(tmp_path / "photos" / "000042.jpg", exif=exif)
    sizes = {"apply": (90, 120), "ignore": (120, 90)}
    ways: tuple[Literal["apply", "ignore"], ...] = ("apply", "ignore")
    for way in ways:
        source = open_source(tmp_path / "photos", exif=way)
        assert next(source.frames()).size == sizes[way]
        for width, height in sizes.values():
            boxes = boxes_of(annotations(width=width, height=height), tmp_path)
            if way == "ignore" and (width, height) != sizes["ignore"]:
                with pytest.raises(PoseDataError, match="the boxes are of another copy"):
                    list(predict_stream(finder, source, boxes))
                continue
            (found,) = predict_stream(finder, source, boxes)
            assert found.frame.size == (width, height)  # whichever of the two the annotations are of


def test_other_pictures_are_said_before_anything_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found = boxes_of({"a.jpg": [BOX], "b.jpg": [BOX]}, tmp_path)
    found.check(PictureFiles("photos", Path("photos"), ("x/a.jpg", "c.jpg"), Turned()))
    assert "1 of 2 pictures have no box in" in caplog.text and ": c.jpg" in caplog.text
    assert "1 pictures of" in caplog.text
    nobody = found(Frame("c.jpg", 2, FRAME.pixels))
    assert nobody.boxes.shape == (0, 4)
    with pytest.raises(PoseDataError, match=r"no box for any of the 1 pictures: it calls its own 'a.jpg', 'b.jpg'"):
        found.check(PictureFiles("photos", Path("photos"), ("d.jpg",), Turned()))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"a.jpg": [[1, 2, 3]]}, r"'a.jpg' has the box \[1, 2, 3\]; a list of boxes is expected"),
        ({"a.jpg": BOX}, r"'a.jpg' has the box 10.0; a list"),
        ({"a.jpg": [[1, 2, 3, "x"]]}, "image a.jpg has bbox"),
        ({}, "boxes.json: there is no box in it"),
        (
            [{"image_id": 1, "bbox": [0, 0, 0, 5], "score": 1}],
            "boxes.json: none of 1 .* can be used: 1 without area",
        ),
        ("text", 'boxes.json: it holds "text" and no list of boxes: COCO\'s results or annotations, or an object'),
        (None, "boxes.json: it holds null and no list"),
        ({"a.jpg": [[*BOX, 95]]}, "image a.jpg has score 95: a number from 0 to 1 is expected; is it a percentage"),
        ({"a.jpg": [[0.1, 0.2, 0.3, 0.4]]}, "boxes.json: none of the numbers of 1 boxes is above 1, .*as YOLO"),
        ([{"bbox": BOX, "score": 1}], "a detection has no 'image_id'"),
    ],
)
def test_other_forms_are_refused(tmp_path: Path, data: Any, message: str) -> None:
    with pytest.raises(PoseDataError, match=message):
        boxes_of(data, tmp_path)


def test_a_score_is_between_0_and_1(tmp_path: Path) -> None:
    with pytest.raises(PoseDataError, match="threshold=30: a score between 0 and 1"):
        boxes_of({"a.jpg": [BOX]}, tmp_path, 30)


def pictures(*names: str) -> PictureFiles:
    return PictureFiles("photos", Path("photos"), names, Turned())


def results(*ids: Any, **other: Any) -> list[dict[str, Any]]:
    return [
        {"image_id": own, "bbox": [own if isinstance(own, int) else 0, 1, 9, 9], "score": 1, **other} for own in ids
    ]


def given_to(boxes: FileBoxes, source: PictureFiles) -> list[float]:
    """The left side of the box that each picture gets, -1 for none."""
    chosen = boxes.of(source)
    found = [chosen(Frame(*each, FRAME.pixels)) for each in zip(source.names, source.ids, strict=True)]
    return [float(each.boxes[0, 0]) if len(each.boxes) else -1.0 for each in found]


def test_numbers_tell_only_pictures_that_are_named_by_them(tmp_path: Path) -> None:
    """The ids of some other file are none of the numbers that pictures are counted by."""
    boxes = boxes_of(results(0, 1, 2, 3), tmp_path)
    assert given_to(boxes, pictures("0001.jpg", "0002.jpg", "0003.jpg")) == [1, 2, 3]
    for names in (("shore 0.jpg", "shore 1.jpg"), ("a/1.jpg", "b/1.jpg"), ("1.jpg", "a.jpg")):
        assert given_to(boxes, pictures(*names)) == [-1, -1]
        with pytest.raises(PoseDataError, match="tells pictures that are all named by different numbers.* annotations"):
            boxes.check(pictures(*names))
    frame = Frame("000002", 2, FRAME.pixels)  # of a video
    assert boxes(frame).boxes[0, 0] == 2 and boxes_of({"2": [BOX]}, tmp_path)(frame).boxes.tolist() == [BOX]


def test_a_name_without_its_folder_is_of_one_picture(tmp_path: Path) -> None:
    by_name = {"x.jpg": [BOX], "b/y.jpg": [OTHER]}
    boxes = boxes_of(by_name, tmp_path)
    assert given_to(boxes, pictures("a/x.jpg", "a/y.jpg", "b/y.jpg")) == [10, -1, 1]
    assert given_to(boxes, pictures("a/x.jpg", "x.jpg")) == [-1, 10]  # in full it is the other one's
    with pytest.raises(PoseDataError, match=r"'x.jpg' may be any of 2 pictures \(a/x.jpg, b/x.jpg\): .* below photos"):
        boxes.check(pictures("a/x.jpg", "b/x.jpg"))


def several(*names: str, **shape: Any) -> dict[str, Any]:
    """Annotations of a picture, one of each category, whose ids are from 5 and boxes' left sides the ids."""
    categories = [{"id": own, "name": name} | shape.get(name, {}) for own, name in enumerate(names, 5)]
    people = [{"id": c["id"], "image_id": 7, "category_id": c["id"], "bbox": [c["id"], 9, 9, 9]} for c in categories]
    return {"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": people, "categories": categories}


def categories_in(data: Any, tmp_path: Path, wanted: Any = None, joints: JointSet | None = COCO) -> list[Any]:
    (tmp_path / "boxes.json").write_text(json.dumps(data))
    found = read_boxes(tmp_path / "boxes.json", 0, joints, wanted).found
    return [own for each in found.values() for own in each.categories or ()]


def test_categories_of_annotations_are_chosen_as_in_evaluation(tmp_path: Path) -> None:
    person = {"person": {"keypoints": list(COCO.names)}, "cat": {"keypoints": ["nose", "tail"]}}
    data = several("car", "person", "cat", **person)
    assert categories_in(data, tmp_path) == list(normalised(data, COCO).category_ids) == [6]
    with pytest.raises(PoseDataError, match="boxes.json: no category of the file has the 17 joints of coco"):
        categories_in(several("car", "cat", **person), tmp_path)
    plain = several("car", "person")  # nothing is said of joints
    assert categories_in(plain, tmp_path, ["person"]) == categories_in(plain, tmp_path, ["6"]) == [6]
    for joints in (COCO, None):
        with pytest.raises(PoseDataError, match=r"of 2 categories \(5 'car', 6 'person'\), and nothing says .*--cat"):
            categories_in(plain, tmp_path, joints=joints)
    assert categories_in(several("crab"), tmp_path) == [5]


def test_categories_of_results(tmp_path: Path) -> None:
    for own in (1, 3, "crab"):  # the only one, whatever it is called
        assert categories_in(results(1, 2, category_id=own), tmp_path) == [own] * 2
    mixed = results(1, category_id=3) + results(2, category_id=8)
    assert categories_in(mixed, tmp_path, [8, 9]) == categories_in(mixed, tmp_path, ["8"]) == [8]
    with pytest.raises(PoseDataError, match=r"of 2 categories \(3, 8\), and nothing says which"):
        categories_in(mixed, tmp_path)
    with pytest.raises(PoseDataError, match=r"and none of categories \[4\] is among them"):
        categories_in(mixed, tmp_path, [4])


def test_poses_of_the_models_joints_count_whatever_their_category(tmp_path: Path) -> None:
    """What a run on several categories wrote by --results."""
    poses = [{"image_id": n, "category_id": n, "keypoints": [*range(n, n + 51)], "score": 0.5} for n in (1, 2)]
    assert categories_in(poses, tmp_path) == [1, 2]
    assert categories_in(poses, tmp_path, [2]) == [2]
    with pytest.raises(PoseDataError, match="of 2 categories"):
        categories_in([{**each, "keypoints": each["keypoints"][:42]} for each in poses], tmp_path)


def test_poses_that_were_measured_are_boxes(tmp_path: Path) -> None:
    """The rectangle around the joints is what pycocotools makes of the same entry."""
    truth = COCOFile()
    truth.dataset = {"images": [{"id": 42}], "annotations": [], "categories": [{"id": 3}]}
    truth.createIndex()
    pose = [12.5, 20, 0.9, 40, 21, 0.8, 30, 61.5, 0.7]
    entry = {"image_id": 42, "category_id": 3, "keypoints": pose, "score": 0.6}
    (expected,) = truth.loadRes([dict(entry)]).anns.values()
    found = boxes_of([entry], tmp_path)(FRAME)
    assert found.boxes.tolist() == [expected["bbox"]] and found.scores.tolist() == [0.6] and found.categories == (3,)


def test_a_score_of_0_is_one(tmp_path: Path) -> None:
    data = annotations()
    data["annotations"][0]["score"] = 0
    assert boxes_of(data, tmp_path)(FRAME).scores.tolist() == [0.0]
