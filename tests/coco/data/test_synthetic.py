"""The painted data set: the same by seed, in COCO's format; flags, boxes and areas follow from what is seen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pycocotools")
pytest.importorskip("cv2")

from cycledistill.integrations.coco.data import synthetic
from cycledistill.integrations.coco.data.annotations import annotated_persons
from cycledistill.integrations.coco.data.figure import PARTS, SHOWN_BY, TORSO, draw_figure, paint
from cycledistill.integrations.coco.data.images import ImageStore, PoseDataError
from cycledistill.integrations.coco.data.joints import COCO
from cycledistill.integrations.coco.data.synthetic import draw_scene, write_synthetic
from cycledistill.integrations.coco.evaluation.average_precision import (
    PosePrediction,
    evaluate_poses,
    to_results,
)
from cycledistill.integrations.coco.evaluation.ground_truth import load_ground_truth
from cycledistill.integrations.coco.recipe import load_recipe
from cycledistill.integrations.coco.training.sources import open_training, open_validation

SIZE = (120, 160)


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("figures") / "set", 6, 5, size=SIZE, seed=3)


def annotations(root: Path, part: str) -> Any:
    return json.loads((root / "annotations" / f"person_keypoints_{part}2017.json").read_text())


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_same_arguments_write_the_same_bytes(figures: Path, tmp_path: Path) -> None:
    again = write_synthetic(tmp_path / "set", 6, 5, size=SIZE, seed=3)
    assert files(again) == files(figures)
    assert list(tmp_path.iterdir()) == [again]
    longer = write_synthetic(tmp_path / "longer", 7, 5, size=SIZE, seed=3)  # a picture depends on its number alone
    assert (longer / "train2017" / "000000000006.jpg").read_bytes() == files(figures)["train2017/000000000006.jpg"]
    other = write_synthetic(tmp_path / "other", 1, 1, size=SIZE, seed=4)
    assert files(other)["train2017/000000000001.jpg"] != files(figures)["train2017/000000000001.jpg"]
    assert files(figures)["train2017/000000000001.jpg"] != files(figures)["val2017/000000000001.jpg"]


def test_a_set_that_is_there_is_kept_and_anything_else_refused(figures: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in figures.rglob("*")}
    assert write_synthetic(figures, 6, 5, size=SIZE, seed=3) == figures
    assert {path: path.stat().st_mtime_ns for path in figures.rglob("*")} == before
    with pytest.raises(PoseDataError, match=r"made otherwise.*'seed': 3.*'seed': 0.*another folder"):
        write_synthetic(figures, 6, 5, size=SIZE)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PoseDataError, match="something else"):
        write_synthetic(tmp_path, 1, 1, size=SIZE)
    assert files(tmp_path) == {"notes.txt": b"mine"}


def test_nothing_is_left_of_a_set_that_could_not_be_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Any:
        raise OSError("No space left on device")

    monkeypatch.setattr(synthetic.json, "dumps", fail)
    with pytest.raises(OSError, match="No space left"):
        write_synthetic(tmp_path / "set", 1, 1, size=SIZE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [{"train": 0}, {"val": 0}, {"size": (32, 100)}])
def test_bad_arguments_are_named(arguments: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1 picture each"):
        write_synthetic(tmp_path / "set", **arguments)


def test_recipes_and_pycocotools_take_it_like_coco(figures: Path) -> None:
    recipe = load_recipe("sdpose_s_v1", [f"data.root={figures}", "data.detections=null"])
    training, validation = open_training(recipe.data, SIZE), open_validation(recipe.data, SIZE)
    assert len(training.persons) == len(annotations(figures, "train")["annotations"])
    predictions = []
    for person in validation.persons:
        points = np.concatenate([person.joints, np.ones((17, 1), np.float32)], 1)
        predictions.append(PosePrediction(person.image_id, points, 1.0, person.area))
    found = evaluate_poses(validation.truth, to_results(predictions, COCO, nms_threshold=None), COCO)
    assert found["AP"] == pytest.approx(1.0)
    moved = [
        PosePrediction(p.image_id, p.keypoints + np.array([9.0, 0.0, 0.0], np.float32), 1.0, p.area)
        for p in predictions
    ]
    assert evaluate_poses(validation.truth, to_results(moved, COCO, nms_threshold=None), COCO)["AP"] < 0.5


@pytest.mark.parametrize("part", ["train", "val"])
def test_flags_boxes_and_areas_agree_with_the_picture(figures: Path, part: str) -> None:
    data = annotations(figures, part)
    load_ground_truth(data, COCO)
    assert [picture["id"] for picture in data["images"]] == list(range(1, len(data["images"]) + 1))
    assert len({entry["id"] for entry in data["annotations"]}) == len(data["annotations"])
    images = ImageStore(figures / f"{part}2017")
    assert all(images.read(picture["file_name"]).shape == (*SIZE, 3) for picture in data["images"])
    for entry in data["annotations"]:
        x, y, visible = np.array(entry["keypoints"]).reshape(17, 3).T
        left, top, width, height = entry["bbox"]
        assert entry["num_keypoints"] == (visible > 0).sum() >= 6
        assert not x[visible == 0].any() and not y[visible == 0].any()
        assert (x >= 0).all() and (x <= SIZE[1] - 1).all() and (y >= 0).all() and (y <= SIZE[0] - 1).all()
        assert 0 <= left and left + width <= SIZE[1] and 0 <= top and top + height <= SIZE[0]
        assert 0 < entry["area"] <= width * height
        seen = visible == 2  # what is seen lies in the box of what is seen
        assert (x[seen] >= left - 1).all() and (x[seen] <= left + width).all()
        assert (y[seen] >= top - 1).all() and (y[seen] <= top + height).all()
    assert len(annotated_persons(data, COCO, (64, 48))) == len(data["annotations"])


def test_scenes_hold_what_photographs_hold() -> None:
    people, flags, areas = [], [], []
    for number in range(40):
        _, persons = draw_scene(SIZE, np.random.default_rng(number))
        people.append(len(persons))
        flags += [flag for person in persons for flag in person["keypoints"][2::3]]
        areas += [person["area"] for person in persons]
    assert set(people) == {1, 2, 3, 4}
    share = {flag: flags.count(flag) / len(flags) for flag in (0, 1, 2)}
    assert share[2] > 0.7 and share[1] > 0.02 and share[0] > 0.005
    assert max(areas) > 4 * min(areas)


def test_a_joint_shows_where_its_part_is_painted() -> None:
    zoom = 2
    for number in range(20):
        figure = draw_figure(100.0, np.random.default_rng(number))
        figure = replace(figure, joints=figure.joints + np.array([150.0, 120.0]))
        mask = np.zeros((240 * zoom, 300 * zoom), np.uint8)
        picture = np.zeros((*mask.shape, 3), np.uint8)
        paint(figure, 1, picture, mask, zoom)
        assert picture[mask > 0].any(axis=1).mean() > 0.99
        assert set(np.unique(mask // PARTS)) == {0, 1}
        for joint, (x, y) in enumerate(figure.joints):  # of itself a joint is hidden by itself only
            part = int(mask[round((y + 0.5) * zoom - 0.5), round((x + 0.5) * zoom - 0.5)])
            assert part, f"figure {number}: nothing is painted at {COCO.names[joint]}"
    assert TORSO in SHOWN_BY[5] and TORSO in SHOWN_BY[12] and TORSO not in SHOWN_BY[9]


def test_left_is_on_the_viewers_right_of_a_figure_that_faces_the_viewer() -> None:
    figures = [draw_figure(100.0, np.random.default_rng(number)) for number in range(30)]
    for figure in figures:
        up = figure.joints[5:7].mean(0) - figure.joints[11:13].mean(0)
        across = np.array([-up[1], up[0]])  # of an upright figure: to the viewer's right
        assert (figure.joints[5] - figure.joints[6]) @ across > 0
        assert (figure.joints[11] - figure.joints[12]) @ across > 0
