"""Streams: the poses of `predict`, AP 1 of a model that sees, few pictures in memory, and who is who over frames."""

from __future__ import annotations

import dataclasses
import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cycledistill.integrations.coco.data.detections import Detected
from cycledistill.integrations.coco.data.images import PoseDataError
from cycledistill.integrations.coco.data.joints import COCO
from cycledistill.integrations.coco.evaluation.average_precision import evaluate_poses
from cycledistill.integrations.coco.evaluation.ground_truth import load_ground_truth
from cycledistill.integrations.coco.evaluation.measure import EvalSettings
from cycledistill.integrations.coco.predict import predict
from cycledistill.integrations.coco.prediction import stream as streams
from cycledistill.integrations.coco.prediction.box_files import read_boxes
from cycledistill.integrations.coco.prediction.boxes import DetectedBoxes
from cycledistill.integrations.coco.prediction.sources import open_source
from cycledistill.integrations.coco.prediction.stream import Predicted, predict_stream
from cycledistill.integrations.coco.prediction.tracking import track
from cycledistill.integrations.coco.prediction.written.tables import results_file
from cycledistill.recipes.prediction.ahead import AHEAD, in_order
from cycledistill.recipes.prediction.frames import Frame
from tests.coco.prediction.conftest import DotFinder
from tests.coco.test_predict import near

FLIPLESS = EvalSettings(flip=False)  # the finder knows joints by colour, which mirroring does not change


def test_a_model_that_sees_has_ap_one_through_the_files(dots: Path, tmp_path: Path) -> None:
    """Source, boxes, crops, colours, decoding, ids and the results file together, judged by pycocotools."""
    annotations = dots / "annotations" / "val.json"
    boxes, finder = read_boxes(annotations), DotFinder((256, 192))
    with results_file(tmp_path / "results.json", COCO, 0.2) as add:
        for found in predict_stream(finder, open_source(dots / "pictures"), boxes, settings=FLIPLESS):
            add(found)
    results = json.loads((tmp_path / "results.json").read_text())
    assert [set(entry) for entry in results] == [{"image_id", "category_id", "keypoints", "score"}] * 6
    numbers = evaluate_poses(load_ground_truth(json.loads(annotations.read_text()), COCO), results, COCO)
    assert numbers["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_it_answers_as_predict_does(dots: Path, model: Any, batch_size: int) -> None:
    source, boxes = open_source(dots / "pictures"), read_boxes(dots / "detections.json")
    settings = EvalSettings(batch_size=batch_size, nms=None, workers=3)
    found = list(predict_stream(model, source, boxes, exit=2, settings=settings))
    frames = list(source.frames())
    expected = predict(model, [each.pixels for each in frames], [boxes(each).boxes for each in frames], exit=2)
    assert [each.image_id for each in found] == [1, 2, 3]
    for one, other in zip(found, expected, strict=True):
        near(one.keypoints, other)
        near(one.scores, [0.9 * pose[pose[:, 2] > 0.2, 2].mean() if (pose[:, 2] > 0.2).any() else 0 for pose in other])


def test_of_two_poses_of_a_person_the_better_one_stays(dots: Path, finder: Any) -> None:
    twice = json.loads((dots / "detections.json").read_text())[:1]
    box = Detected(np.array([twice[0]["bbox"]] * 3), np.array([0.5, 0.9, 0.7]))
    source = open_source(dots / "pictures" / "1.png")
    (found,) = predict_stream(finder, source, lambda frame: box, settings=FLIPLESS)
    assert found.box_scores.tolist() == [0.9] and found.keypoints.shape == (1, 17, 3) and len(found) == 1
    (found,) = predict_stream(finder, source, lambda frame: box, settings=dataclasses.replace(FLIPLESS, nms=None))
    assert len(found) == 3


def test_boxes_outside_their_picture_are_left_out_and_counted(
    dots: Path, finder: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, right = open_source(dots / "pictures"), json.loads((dots / "detections.json").read_text())
    path = tmp_path / "boxes.json"
    stray = [{**right[-1], "bbox": [9000, 9000, 20, 20]}]
    path.write_text(json.dumps([{**each, "category_id": 4} for each in right + stray]))
    settings = dataclasses.replace(FLIPLESS, batch_size=2)
    found = list(predict_stream(finder, source, read_boxes(path), settings=settings))
    assert [len(each) for each in found] == [2, 2, 2] and [each.categories for each in found] == [(4, 4)] * 3
    assert "1 of 7 boxes left out: outside their picture, such as in 3.png" in caplog.text
    with results_file(tmp_path / "results.json", COCO, 0.2) as add:
        add(found[0])
    assert [each["category_id"] for each in json.loads((tmp_path / "results.json").read_text())] == [4, 4]
    path.write_text(json.dumps(right + stray * 6))
    with pytest.raises(PoseDataError, match="the middle of 6 of 12 boxes is outside their picture"):
        list(predict_stream(finder, source, read_boxes(path), settings=FLIPLESS))


class Watched:
    """A source that counts how many of its pictures live."""

    name, fps, total, files, folders = "watched", None, None, (), ()

    def __init__(self, number: int, shape: tuple[int, int]) -> None:
        self.number, self.shape, self.alive, self.most = number, shape, 0, 0

    def frames(self, broken: str = "stop") -> Iterator[Frame]:
        for number in range(self.number):
            pixels = np.zeros((*self.shape, 3), np.uint8)
            weakref.finalize(pixels, self.let_go)
            self.alive += 1
            self.most = max(self.most, self.alive)
            frame = Frame(f"{number}.png", number, pixels)
            del pixels
            yield frame
            del frame

    def let_go(self) -> None:
        self.alive -= 1


@pytest.mark.parametrize("tracked", [False, True])
def test_few_pictures_are_in_memory_however_many_there_are(
    model: Any, monkeypatch: pytest.MonkeyPatch, tracked: bool
) -> None:
    """A batch's, and by their size; 3 more: the next, that which was given last, and the tracker's."""
    for batch, held, most in ((4, 2**28, 4), (64, 5 * 20 * 30 * 3, 5)):
        monkeypatch.setattr(streams, "HELD_BYTES", held)
        source: Any = Watched(40, (20, 30))
        found = predict_stream(model, source, settings=EvalSettings(batch_size=batch, flip=False))
        for each in track(found, COCO) if tracked else found:
            assert len(each) == 1
        del each
        assert most <= source.most <= most + 3 and source.alive == 0


def test_a_picture_that_is_larger_than_all_may_hold_is_predicted(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HELD_BYTES", 1)
    source: Any = Watched(3, (20, 30))
    assert [len(each) for each in predict_stream(model, source)] == [1, 1, 1]


def test_reading_ahead_keeps_order_and_few(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    results = in_order(lambda number: started.append(number) or number**2, range(50))
    assert [next(results) for _ in range(3)] == [0, 1, 4] and len(started) <= 3 + AHEAD
    assert list(results) == [number**2 for number in range(3, 50)]
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda number: 1 // number, [1, 0, 1]))


def test_a_detector_looks_at_a_frame_at_a_time(dots: Path, model: Any) -> None:
    import torch
    from torch import nn

    class Detector(nn.Module):
        def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            assert [tuple(image.shape) for image in images] == [(3, 80, 100)]
            boxes = torch.tensor([[1.0, 2, 41, 72], [50, 5, 90, 70], [0, 0, 9, 9]])
            return [{"boxes": boxes, "labels": torch.tensor([1, 1, 3]), "scores": torch.tensor([0.2, 0.8, 0.9])}]

    found = list(predict_stream(model, open_source(dots / "pictures"), DetectedBoxes(Detector())))
    assert [each.boxes.tolist() for each in found] == [[[50, 5, 40, 65]]] * 3


def frames_of(places: list[list[tuple[float, float] | None]]) -> Iterator[Predicted]:
    """Persons of one shape, 40 x 80 pixels, at places frame by frame; ``None``: not seen."""
    shape = np.stack([np.linspace(0, 40, 17), np.linspace(0, 80, 17)], 1)
    for number, persons in enumerate(places):
        seen = [np.array(place) for place in persons if place is not None]
        poses = [np.concatenate([shape + place, np.ones((17, 1))], 1) for place in seen]
        boxes = [[*place, 40, 80] for place in seen]
        keypoints = np.array(poses, np.float32).reshape(-1, 17, 3)
        frame = Frame(str(number), number, np.zeros((8, 8, 3), np.uint8))
        count = len(seen)
        yield Predicted(frame, number, keypoints, np.ones(count), np.array(boxes).reshape(-1, 4), np.ones(count))


def test_persons_keep_their_numbers() -> None:
    a, b = [(100 + 3 * n, 50) for n in range(6)], [(300 - 3 * n, 60) for n in range(6)]
    places: Any = [
        [a[0]],
        [b[1], a[1]],  # who comes second is 2, wherever they stand in the list
        [a[2], b[2]],
        [b[3]],  # the first is not seen for a frame
        [b[4], a[4]],
        [],
        [(500, 50), a[5]],  # far from anybody: new
    ]
    numbers = [each.tracks.tolist() for each in track(frames_of(places), COCO) if each.tracks is not None]
    assert numbers == [[1], [2, 1], [1, 2], [2], [2, 1], [], [3, 1]]
    forgotten = track(frames_of([[(0, 0)], [], [], [(0, 0)]]), COCO, patience=2)
    assert [each.tracks.tolist() for each in forgotten if each.tracks is not None] == [[1], [], [], [2]]
    near_and_nearer = track(frames_of([[(0, 0)], [(2, 0), (1, 0)]]), COCO)
    assert [each.tracks.tolist() for each in near_and_nearer if each.tracks is not None] == [[1], [2, 1]]


def test_the_threshold_of_following_is_oks_by_hand() -> None:
    """A step of d pixels of all joints: OKS is the mean of exp(-d^2 / (2 (2 sigma)^2 area)), area .53 of the box."""
    step = 6.0
    variances = (2 * np.array(COCO.sigmas)) ** 2
    expected = np.exp(-(step**2) / 2 / variances / (0.53 * 40 * 80)).mean()
    for threshold, number in ((expected - 1e-4, 1), (expected + 1e-4, 2)):
        found = list(track(frames_of([[(0, 0)], [(step, 0)]]), COCO, threshold=threshold))
        assert found[1].tracks is not None and found[1].tracks.tolist() == [number]


def test_pictures_of_different_sizes_are_not_followed_through() -> None:
    first, second = frames_of([[(0, 0)], [(0, 0)]])
    other = dataclasses.replace(second, frame=Frame("b.png", 1, np.zeros((9, 8, 3), np.uint8)))
    with pytest.raises(PoseDataError, match="b.png is 8 x 9 pixels, those before it 8 x 8: .* .leave --track out"):
        list(track([first, other], COCO))
