"""Files of predictions: what is in them, that lifting reads them, and that they are whole or not there."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cycledistill.integrations.coco.data.images import PoseDataError
from cycledistill.integrations.coco.data.joints import COCO
from cycledistill.integrations.coco.draw import draw_poses
from cycledistill.integrations.coco.evaluation.measure import EvalSettings
from cycledistill.integrations.coco.prediction.box_files import read_boxes
from cycledistill.integrations.coco.prediction.job import predict_source
from cycledistill.integrations.coco.prediction.sources import open_source
from cycledistill.integrations.coco.prediction.stream import Predicted, predict_stream
from cycledistill.integrations.coco.prediction.written import drawn
from cycledistill.integrations.coco.prediction.written.folder import check_output, open_outputs
from cycledistill.integrations.human36m.data.keypoints.files import read_persons
from cycledistill.integrations.human36m.lift import prepare
from cycledistill.recipes.errors import DataError
from tests.coco.prediction.conftest import Write
from tests.coco.prediction.test_stream import frames_of

FLIPLESS = EvalSettings(flip=False)


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_of_pictures(dots: Path, finder: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    source, boxes = open_source(dots / "pictures"), read_boxes(dots / "detections.json")
    done = predict_source(finder, source, tmp_path / "out", boxes, settings=FLIPLESS, progress=True)
    assert "predict: 0 of 3 pictures" in caplog.text
    assert (done.frames, done.persons, done.empty) == (3, 6, 0) and done.rate > 0
    names = ["1.png", "2.png", "3.png"]
    expected = ["poses.csv", "results.json", *(f"drawn/{n}" for n in names), *(f"poses/{n}.json" for n in names)]
    assert tree(tmp_path / "out") == sorted(expected)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    found = list(predict_stream(finder, source, boxes, settings=FLIPLESS))
    assert [entry["image_id"] for entry in results] == [1, 1, 2, 2, 3, 3]
    poses = np.concatenate([each.keypoints for each in found])
    np.testing.assert_allclose(np.array([entry["keypoints"] for entry in results]).reshape(6, 17, 3), poses, rtol=1e-5)
    one = json.loads((tmp_path / "out" / "poses" / "2.png.json").read_text())
    assert [one[key] for key in ("picture", "image_id", "width", "height")] == ["2.png", 2, 100, 80]
    first = one["persons"][0]
    assert list(first["keypoints"]) == list(COCO.names) and first["box_score"] == 0.9 and "track" not in first
    np.testing.assert_allclose(first["keypoints"]["left_wrist"], found[1].keypoints[0, 9], atol=1e-3)
    with (tmp_path / "out" / "poses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["picture"], row["person"], row["track"]) for row in rows[:3]] == [
        ("1.png", "0", ""),
        ("1.png", "1", ""),
        ("2.png", "0", ""),
    ]
    assert float(rows[2]["left_wrist_x"]) == first["keypoints"]["left_wrist"][0]
    assert float(rows[2]["score"]) == first["score"] and float(rows[2]["width"]) == 30
    picture = found[0].frame.pixels
    read = cv2.imread(str(tmp_path / "out" / "drawn" / "1.png"))[..., ::-1]
    np.testing.assert_array_equal(read, draw_poses(picture, found[0].keypoints, threshold=0.2))


def test_of_a_video(dots: Path, finder: Any, tmp_path: Path, write_video: Write) -> None:
    """Two persons who are followed, through a video without loss, to what lifting reads."""
    pictures = [each.pixels for each in open_source(dots / "pictures").frames()]
    still = write_video([pictures[0]] * 4)
    boxes = tmp_path / "boxes.json"
    mine = [entry for entry in json.loads((dots / "detections.json").read_text()) if entry["image_id"] == 1]
    boxes.write_text(json.dumps([{**entry, "image_id": number} for number in (0, 1, 3) for entry in mine]))
    done = predict_source(
        finder, open_source(still), tmp_path / "o", read_boxes(boxes), settings=FLIPLESS, tracked=True
    )
    assert (done.frames, done.persons, done.empty) == (4, 6, 1)
    tracks = [f"keypoints/track_000{number}.npz" for number in (1, 2)]
    assert tree(tmp_path / "o") == sorted(["drawn.mp4", "poses.csv", "poses.jsonl", "results.json", *tracks])
    lines = [json.loads(line) for line in (tmp_path / "o" / "poses.jsonl").read_text().splitlines()]
    assert [[person["track"] for person in line["persons"]] for line in lines] == [[1, 2], [1, 2], [], [1, 2]]
    with np.load(tmp_path / "o" / tracks[1]) as arrays:
        assert arrays["keypoints"].shape == (4, 17, 3) and not arrays["keypoints"][2].any()
        assert (arrays["width"], arrays["height"], arrays["fps"], arrays["first_frame"]) == (100, 80, 12.5, 0)
        assert arrays["joints"].tolist() == list(COCO.names)
    inputs = prepare(tmp_path / "o" / tracks[1], fill=True, confidence=True)
    assert inputs.shape == (4, 17, 3) and (inputs[2, :, 2] == 0).all() and (inputs[3, :, 2] > 0).all()
    np.testing.assert_allclose(inputs[2, :, :2], inputs[1, :, :2], atol=1e-6)
    forms = [read_persons(tmp_path / "o" / name) for name in ("keypoints", "poses.jsonl")]
    for npz, line in zip(*forms, strict=True):
        assert npz.track == line.track and npz.frames.tolist() == line.frames.tolist() == [0, 1, 2, 3]  # type: ignore[union-attr]
        np.testing.assert_allclose(npz.pixels, line.pixels, atol=1e-3)
    video = cv2.VideoCapture(str(tmp_path / "o" / "drawn.mp4"))
    assert (video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)) == (4, 12.5)
    frame = video.read()[1][..., ::-1].astype(int)
    assert np.abs(frame - drawn.drawn(next(track_of(finder, still, boxes)), COCO, 0.2)).mean() < 12


def track_of(finder: Any, video: Path, boxes: Path) -> Any:
    from cycledistill.integrations.coco.prediction.tracking import track

    return track(predict_stream(finder, open_source(video), read_boxes(boxes), settings=FLIPLESS), COCO)


def test_the_one_person_of_a_video_and_several(
    dots: Path, finder: Any, tmp_path: Path, write_video: Write, caplog: pytest.LogCaptureFixture
) -> None:
    picture = next(open_source(dots / "pictures").frames()).pixels
    video = open_source(write_video([picture] * 3))
    both = json.loads((dots / "detections.json").read_text())[:2]
    for persons, written in ((1, True), (2, False)):
        rows = {str(number): [entry["bbox"] for entry in both[:persons]] for number in (0, 1)}
        (tmp_path / "boxes.json").write_text(json.dumps(rows))
        out = tmp_path / str(persons)
        boxes = read_boxes(tmp_path / "boxes.json")
        predict_source(finder, video, out, boxes, settings=FLIPLESS, kinds=["keypoints"])
        assert tree(out) == (["keypoints.npz"] if written else [])
    assert "frame 0 has several persons: no keypoint file, which is of one; --track" in caplog.text
    with np.load(tmp_path / "1" / "keypoints.npz") as arrays:
        assert arrays["keypoints"].shape == (3, 17, 3)  # rows are frames, also where nobody is seen
    (tmp_path / "boxes.json").write_text(json.dumps({"77": [both[0]["bbox"]]}))
    predict_source(finder, video, tmp_path / "0", read_boxes(tmp_path / "boxes.json"), kinds=["keypoints"])
    assert tree(tmp_path / "0") == [] and "nobody in any frame: no keypoint file" in caplog.text


def test_a_followed_persons_rows_begin_when_they_appear(tmp_path: Path) -> None:
    from cycledistill.integrations.coco.prediction.tracking import track
    from cycledistill.integrations.coco.prediction.written.clips import keypoint_files

    places: Any = [[(0, 0)], [(0, 0)], [(0, 0), (200, 0)], [(200, 0)]]
    with keypoint_files(tmp_path, COCO, None) as add:
        for each in track(frames_of(places), COCO):
            if each.frame.number == 3:
                each.keypoints[0, 4, 2] = 0  # not found: its place means nothing
            add(each)
    with np.load(tmp_path / "keypoints" / "track_0002.npz") as arrays:
        assert arrays["keypoints"].shape == (2, 17, 3) and arrays["first_frame"] == 2 and "fps" not in arrays
        assert not arrays["keypoints"][1, 4].any() and arrays["keypoints"][1, 5].any()


@pytest.mark.parametrize("video", [False, True])
@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_an_interrupted_run_leaves_nothing_half(
    dots: Path, finder: Any, tmp_path: Path, write_video: Write, video: bool, error: BaseException
) -> None:
    source = open_source(dots / "pictures")
    if video:
        source = open_source(write_video([each.pixels for each in source.frames()]))
    with pytest.raises(type(error)), open_outputs(tmp_path / "out", source, COCO) as add:
        for number, each in enumerate(predict_stream(finder, source, settings=FLIPLESS)):
            if number == 2:
                raise error
            add(each)
    whole = [] if video else ["drawn/1.png", "drawn/2.png", "poses/1.png.json", "poses/2.png.json"]
    assert tree(tmp_path / "out") == whole
    for name in whole[:2]:
        assert cv2.imread(str(tmp_path / "out" / name)) is not None


def test_a_video_that_lacks_frames_is_no_file(dots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        """OpenCV's writer on a full disk: it says nothing."""

        def isOpened(self) -> bool:
            return True

        def write(self, pixels: Any) -> None:
            pass

        def release(self) -> None:
            pass

    writer: Any = lambda *given: Full()  # noqa: E731
    writer.fourcc = cv2.VideoWriter.fourcc
    monkeypatch.setattr(cv2, "VideoWriter", writer)
    with (
        pytest.raises(OSError, match="not written whole, 0 of 2 frames; is the disk full"),
        drawn.drawn_video(tmp_path / "drawn.mp4", COCO, 0.2, 25.0) as add,
    ):
        for each in frames_of([[(0, 0)], [(0, 0)]]):
            add(each)
    assert tree(tmp_path) == []


@pytest.mark.parametrize(
    ("source", "output", "message"),
    [
        ("photos", "photos", "photos is not empty"),
        ("photos", "photos/found", "in each other: the next run would see what is written there"),
        ("photos", "photos/a/found", "in each other"),
        ("photos/**/*.png", "photos/found", "in each other"),
        ("photos/1.png", "photos", "is not empty"),
        ("photos", "file", "file is a file"),
        ("link", "photos/found", "in each other"),
        ("photos/*.png", "photos/found", "in each other"),
        ("photos/*.png", "photos2", None),
        ("photos", "found", None),
        ("photos", "empty", None),
        ("photos/1.png", "found", None),
        ("photos/1.png", "photos/found", None),  # named by itself: its folder is not read
    ],
)
def test_output_and_input_do_not_mix(
    dots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, output: str, message: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "a").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    for name in ("1.png", "a/2.png"):
        (tmp_path / "photos" / name).write_bytes((dots / "pictures" / "1.png").read_bytes())
    if message is None:
        check_output(Path(output), open_source(source))
        return
    with pytest.raises(DataError, match=message):
        check_output(Path(output), open_source(source))


def test_a_whole_picture_is_said_and_kinds_are_known(
    dots: Path, finder: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = open_source(dots / "pictures" / "1.png")
    with pytest.raises(PoseDataError, match="'video' is nothing that can be written: results, poses"):
        predict_source(finder, source, tmp_path / "out", kinds=["video"])
    predict_source(finder, source, tmp_path / "out", kinds=["csv"])
    assert "each picture is taken for one person who fills it, however many are in it" in caplog.text
    assert tree(tmp_path / "out") == ["poses.csv"] and caplog.records[0].levelno == logging.WARNING


def test_nobody_is_an_empty_list(dots: Path, finder: Any, tmp_path: Path) -> None:
    source = open_source(dots / "pictures" / "1.png")
    (found,) = predict_stream(finder, source)
    nobody = Predicted(found.frame, 1, found.keypoints[:0], found.scores[:0], found.boxes[:0], found.box_scores[:0])
    with open_outputs(tmp_path / "out", source, COCO) as add:
        add(nobody)
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == []
    assert json.loads((tmp_path / "out" / "poses" / "1.png.json").read_text())["persons"] == []
