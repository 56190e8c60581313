"""Prediction on a user's pictures: the numbers of the evaluation, every kind of picture, and bad input by name."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("pycocotools")

from PIL import Image

from cycledistill.integrations.coco.data.annotations import annotated_persons, detected_persons
from cycledistill.integrations.coco.data.detections import read_detections
from cycledistill.integrations.coco.data.images import ImageStore, PoseDataError
from cycledistill.integrations.coco.data.joints import COCO
from cycledistill.integrations.coco.evaluation.measure import EvalSettings, predict_persons
from cycledistill.integrations.coco.models.registry import create_pose_model
from cycledistill.integrations.coco.predict import predict
from tests.coco.figures import write_dots

SIZE = (64, 48)


@pytest.fixture(scope="module")
def dots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dots(tmp_path_factory.mktemp("dots") / "set", pictures=3)


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    options = {"backbone": "none", "patch_size": (16, 12), "dim": 16, "depth": 2, "heads": 2, "cycles": 2}
    return create_pose_model("sdpose_s_v1", image_size=SIZE, **options)


def near(found: Any, other: Any) -> None:
    """Equal but for rounding, which depends on a person's place in the batch; DARK's steps magnify it."""
    np.testing.assert_allclose(found, other, rtol=1e-4, atol=1e-2)


def pixels(dots: Path, number: int = 1) -> Any:
    return ImageStore(dots / "pictures").read(f"{number}.png")


@pytest.mark.parametrize("flip", [True, False])
def test_it_predicts_what_the_evaluation_predicts(dots: Path, model: Any, flip: bool) -> None:
    entries = json.loads((dots / "detections.json").read_text())
    annotations = json.loads((dots / "annotations" / "val.json").read_text())
    persons = detected_persons(entries, annotations, COCO, SIZE)
    settings = EvalSettings(flip=flip, batch_size=4)
    files = [dots / "pictures" / f"{number}.png" for number in (1, 2, 3)]
    found = read_detections(dots / "detections.json")
    for exit in (1, 3):
        theirs = predict_persons(model, persons, ImageStore(dots / "pictures"), COCO, exits=(exit,), settings=settings)
        ours = predict(model, files, [found[n].boxes for n in (1, 2, 3)], exit=exit, settings=settings)
        assert [len(each) for each in ours if each is not None] == [2, 2, 2]
        np.testing.assert_array_equal(np.concatenate(ours), np.stack([theirs[exit][i] for i in range(6)]))
    assert model.cyclic.exit == 1


def test_files_arrays_and_pil_images_are_the_same(dots: Path, model: Any) -> None:
    path = dots / "pictures" / "1.png"
    box = [[8.0, 8.0, 30.0, 60.0]]
    kinds = [str(path), path, pixels(dots), Image.open(path), pixels(dots)[:, ::-1][:, ::-1]]
    found = predict(model, kinds, [box] * len(kinds))
    for other in found[1:]:
        near(other, found[0])
    grey = predict(model, [Image.open(path).convert("L")], [box])[0]
    assert grey is not None and grey.shape == (1, 17, 3)


def test_no_boxes_are_nobody_and_none_is_the_whole_picture(dots: Path, model: Any) -> None:
    image = pixels(dots)
    whole, same, nobody = predict(model, [image] * 3, [None, [[0, 0, 100, 80]], []])
    assert whole is not None and same is not None and nobody is not None
    near(whole, same)
    assert nobody.shape == (0, 17, 3)
    near(predict(model, [image])[0], whole)
    assert predict(model, []) == []
    beyond = predict(model, [image], [[[-20, -20, 90, 90]]])[0]  # partly outside: cut out all the same
    assert beyond is not None and np.isfinite(beyond).all()


def test_that_a_whole_picture_is_taken_for_one_person_is_said_once(
    dots: Path, model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    image, box = pixels(dots), [[8.0, 8.0, 30.0, 60.0]]
    predict(model, [image, image], [box, []])
    assert not caplog.records
    predict(model, [image] * 3, [None, box, None])
    predict(model, [image])
    assert [record.message for record in caplog.records] == [
        f"{some} pictures have no boxes: each is taken for one person who fills it" for some in ("2 of 3", "1 of 1")
    ]


def test_pictures_are_turned_as_a_viewer_shows_them(dots: Path, model: Any, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8  # to the left: what follows is the camera's picture, turned to the right
    sideways = Image.fromarray(np.ascontiguousarray(np.rot90(pixels(dots), -1)))
    sideways.save(tmp_path / "phone.png", exif=exif)
    box = [[8.0, 8.0, 30.0, 60.0]]
    upright = predict(model, [pixels(dots)], [box])[0]
    near(predict(model, [tmp_path / "phone.png"], [box])[0], upright)
    near(predict(model, [Image.open(tmp_path / "phone.png")], [box])[0], upright)
    stored = predict(model, [tmp_path / "phone.png"], exif="ignore")[0]
    near(stored, predict(model, [np.asarray(sideways)])[0])


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[[0, 0, 0, 10]]], r"images\[0\]: box 0, x=0 y=0 width=0 height=10, has no area; .*not two corners"),
        ([[[1, 1, 5, 5], [50, 40, -20, 10]]], "box 1, .* has no area"),
        ([[[100, 0, 10, 10]]], "is outside the picture of 100 x 80 pixels"),
        ([[[-30, 0, 30, 10]]], "is outside the picture"),
        ([[[0, 0, float("nan"), 10]]], "is not finite"),
        ([[[0.1, 0.2, 0.4, 0.7]]], "boxes: none of the numbers of 1 boxes is above 1, so they look like fractions"),
        (
            [[[50, 30, 90, 75]]],
            "1 of 1 boxes reach far .*left, top, right, bottom .50, 30, 90, 75 in a picture of 100 x",
        ),
        ([[[0, 0, 10]]], r"boxes of shape \(1, 3\); \(N, 4\) is expected"),
        ([[0, 0, 10, 10]], r"boxes of shape \(4,\)"),
        ([[["a", 0, 10, 10]]], "boxes that are no numbers"),
        ([[[0, 0, 5, 5], [0, 0, 5]]], "boxes that are no numbers"),
        ([], "1 pictures with 0 lists of boxes"),
        ([[], []], "1 pictures with 2 lists of boxes"),
    ],
)
def test_bad_boxes_are_named(dots: Path, model: Any, boxes: Any, message: str) -> None:
    with pytest.raises(PoseDataError, match=message):
        predict(model, [pixels(dots)], boxes)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 5), np.uint8), r"images\[0\] is an array \(4, 5\) of uint8: RGB bytes"),
        (np.zeros((4, 5, 4), np.uint8), r"\(4, 5, 4\)"),
        (np.zeros((4, 5, 3), np.float32), "of float32"),
        (np.zeros((0, 5, 3), np.uint8), r"\(0, 5, 3\)"),
        ("no/such.jpg", r"no/such.jpg: there is no such file$"),
    ],
)
def test_bad_pictures_are_named(model: Any, image: Any, message: str) -> None:
    with pytest.raises(PoseDataError, match=message):
        predict(model, [image])
    assert predict(model, [image], settings=EvalSettings(broken="skip")) == [None]


def test_one_picture_instead_of_a_list_is_noticed(dots: Path, model: Any) -> None:
    with pytest.raises(PoseDataError, match="one picture with no boxes: a list of pictures"):
        predict(model, str(dots / "pictures" / "1.png"))


def test_unreadable_pictures_are_skipped_and_counted(
    dots: Path, model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = dots / "pictures" / "1.png"
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:60])  # the head is whole, the pixels are not
    images = [tmp_path / "text.jpg", good, tmp_path / "cut.png", good]
    with pytest.raises(PoseDataError, match=r"text.jpg: not a picture"):
        predict(model, images)
    with pytest.raises(PoseDataError, match=r"cut.png: not a picture"):
        predict(model, images[1:])
    with caplog.at_level(logging.WARNING):
        found = predict(model, images, settings=EvalSettings(broken="skip"))
    assert [each is None for each in found] == [True, False, True, False]
    near(found[1], found[3])
    assert "2 of 4 pictures could not be read and were skipped" in caplog.text


def test_the_joint_set_follows_from_the_model_and_exits_are_its_own(dots: Path, model: Any) -> None:
    options = {"image_size": SIZE, "dim": 16, "depth": 1, "heads": 2, "patch_size": (16, 12)}
    crowd = predict(create_pose_model("tokenpose_t", 14, **options), [pixels(dots)])[0]
    assert crowd is not None and crowd.shape == (1, 14, 3)
    with pytest.raises(ValueError, match=r"predicts 5 joints; known are 17 \(coco\), 14 \(crowdpose\)"):
        predict(create_pose_model("tokenpose_t", 5, **options), [pixels(dots)])
    with pytest.raises(ValueError, match="not wrapped"):
        predict(create_pose_model("tokenpose_t", **options), [pixels(dots)], exit=2)


def test_a_mirrored_picture_is_read_with_the_models_own_pairs(dots: Path) -> None:
    """A model trained on own joints has other left/right pairs than COCO's, though it has as many joints."""
    options = {"image_size": SIZE, "dim": 16, "depth": 1, "heads": 2, "patch_size": (16, 12)}
    torch.manual_seed(0)
    own: Any = create_pose_model("tokenpose_t", **options)
    alone = dataclasses.replace(COCO, name="beast", flip_pairs=((3, 7),))
    own.joints = alone.to_dict()
    found, told = predict(own, [pixels(dots)])[0], predict(own, [pixels(dots)], joints=alone)[0]
    as_coco = predict(own, [pixels(dots)], joints=COCO)[0]
    assert found is not None and told is not None and as_coco is not None
    np.testing.assert_array_equal(found, told)
    assert np.abs(found - as_coco)[..., :2].max() > 1


def test_detections_are_those_that_evaluation_reads(dots: Path, tmp_path: Path) -> None:
    boxes, scores = [[8.0, 8, 30, 60], [54, 8, 30.5, 60]], [0.9, 0.25]
    entries = [{"image_id": 1, "category_id": 1, "bbox": b, "score": s} for b, s in zip(boxes, scores, strict=True)]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(entries))
    annotations = json.loads((dots / "annotations" / "val.json").read_text())
    persons = detected_persons(json.loads(path.read_text()), annotations, COCO, SIZE)
    assert [(p.image_id, p.file_name, p.score) for p in persons] == [(1, "1.png", 0.9), (1, "1.png", 0.25)]
    annotated = annotated_persons(annotations, COCO, SIZE)[0]
    assert np.abs(persons[0].center - annotated.center).max() <= 4  # its box, and not another's
    again = read_detections(path)
    assert list(again) == [1]
    np.testing.assert_array_equal(again[1].boxes, boxes)
    assert read_detections(path, threshold=0.5)[1].scores.tolist() == [0.9]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("{}", "holds no list"),
        ("[1]", "no 'image_id'"),
        ('[{"image_id": 1, "bbox": [0, 0, 1, 1]}]', "no 'score'"),
        ('[{"image_id": 1, "bbox": [0, 0, 1], "score": 1}]', "x, y, width, height is expected"),
        ('[{"image_id": 1, "bbox": [0.1, 0.2, 0.3, 0.4], "score": 1}]', "boxes.json: .*look like fractions"),
        ('[{"image_id": 1, "category_id": 18, "bbox": [1, 2, 3, 4], "score": 1}]', "none of 1 .*: 1 of category 18"),
    ],
)
def test_bad_detection_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "boxes.json").write_text(text)
    with pytest.raises(PoseDataError, match=message):
        read_detections(tmp_path / "boxes.json")
