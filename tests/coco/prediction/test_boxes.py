"""Boxes from files: each form by each kind of name, and what fits no picture."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from cycledistill.integrations.coco.data.images import PoseDataError
from cycledistill.integrations.coco.prediction.boxes import FileBoxes, read_boxes
from cycledistill.integrations.coco.prediction.frames import Frame
from cycledistill.integrations.coco.prediction.sources import open_source
from cycledistill.integrations.coco.prediction.stream import predict_stream

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
    found.check(["x/a.jpg", "c.jpg"], [1, 2])
    assert "1 of 2 pictures have no box in" in caplog.text and ": c.jpg" in caplog.text
    assert "1 pictures of" in caplog.text
    nobody = found(Frame("c.jpg", 2, FRAME.pixels))
    assert nobody.boxes.shape == (0, 4) and found.nobody == 1
    with pytest.raises(PoseDataError, match=r"no box for any of the 1 pictures: it calls its own 'a.jpg', 'b.jpg'"):
        found.check(["d.jpg"], [5])


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
        ("text", "holds no list"),
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
