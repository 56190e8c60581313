"""From pictures to 3D poses: exact for a model that is, by every way in, and in words where it cannot be."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("cv2")
pytest.importorskip("accelerate")

from cycledistill.commands.frame import main
from cycledistill.integrations.coco.prediction.box_files import read_boxes
from cycledistill.integrations.human36m.data.calibration.file import read_calibration
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.multiview.config import MultiViewConfig
from cycledistill.integrations.human36m.multiview.model import create_multiview
from cycledistill.integrations.multiview.data.folders import read_folder
from cycledistill.integrations.multiview.data.samples import MultiViewSamples
from cycledistill.integrations.multiview.evaluation.measure import EvalSettings, evaluate
from cycledistill.integrations.multiview.prediction.frames import open_views
from cycledistill.integrations.multiview.prediction.poses import predict_poses
from cycledistill.recipes.errors import DataError
from tests.multiview.scenes import SMALL, Oracle, some, write_recording

CONFIG = MultiViewConfig()
NAMES = ("cam0", "cam1", "cam2")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recording(tmp_path_factory.mktemp("views") / "a", some())


@pytest.fixture
def folder(recording: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recording, tmp_path / "a"))


@pytest.fixture(scope="module")
def oracle(recording: Path) -> Oracle:
    """It knows the views of the recording, cut out by its boxes."""
    moments = read_folder(recording, unit="mm")
    model = Oracle(CONFIG)
    for views in MultiViewSamples(moments, CONFIG).__getitems__([0, 1]):
        for pixels, joints in zip(views.pixels.flatten(0, 1), views.joints.flatten(0, 1), strict=True):
            model.learn(pixels, joints)
    return model


def boxes_of(folder: Path) -> dict[str, np.ndarray]:
    moments = read_folder(folder, unit="mm").moments
    return {name: np.array([each.views[name].box for each in moments]) for name in NAMES}


def test_true_heatmaps_give_the_true_poses(recording: Path, oracle: Oracle, caplog: pytest.LogCaptureFixture) -> None:
    """Through crops, decoding, the way back to the picture, and triangulation: the whole chain, to a millimetre."""
    caplog.set_level("INFO")
    truth = np.stack([each.pose for each in some().moments if each.pose is not None])
    cameras = read_calibration(recording / "calibration.json", "mm")
    views = {name: recording / name for name in NAMES}
    found = predict_poses(oracle, views, cameras, boxes=boxes_of(recording), progress=True)
    assert np.abs(found.found.poses - truth).max() < 1e-3
    assert found.found.error.max() < 0.05 and found.found.used.all()
    assert found.found.frames is not None and found.found.frames.tolist() == [7, 8]
    own = cameras["cam1"]
    assert np.abs(found.keypoints[1, ..., :2] - own.project(own.to_camera(truth))).max() < 0.05
    figures = evaluate(oracle, read_folder(recording, unit="mm"), EvalSettings(head_size=2.0), progress=True)[1]
    assert figures["jdr"] == 100 and figures["triangulated"] == 100
    assert figures["mpjpe"] < 1 and figures["mpjpe_root"] < 1 and figures["error_2d"] < 0.05
    assert "predict: 0 of 2 moments" in caplog.text and "evaluate: 0 of 1 batches" in caplog.text


def test_a_quarter_pixel_is_what_the_authors_decoding_leaves(recording: Path, oracle: Oracle) -> None:
    figures = evaluate(oracle, read_folder(recording, unit="mm"), EvalSettings(decode="quarter"))[1]
    assert 1 < figures["mpjpe"] < 15


def test_a_missing_picture_does_not_block(folder: Path, oracle: Oracle) -> None:
    boxes = boxes_of(folder)
    (folder / "cam2" / "take2_0007.png").unlink()
    cameras = read_calibration(folder / "calibration.json", "mm")
    given = {name: folder / name for name in NAMES}
    found = predict_poses(oracle, given, cameras, boxes={**boxes, "cam2": boxes["cam2"][1:]}).found
    truth = np.stack([each.pose for each in some().moments if each.pose is not None])
    assert np.abs(found.poses - truth).max() < 2e-3
    assert found.used.all(axis=1).tolist() == [[True, True, False], [True, True, True]]
    moments = read_folder(folder, unit="mm")
    assert [len(each.views) for each in moments.moments] == [2, 3]
    assert evaluate(oracle, moments, EvalSettings())[1]["mpjpe"] < 1


@pytest.mark.slow
def test_the_command_takes_a_hub_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = create_multiview(**{key: tuple(v) if isinstance(v, list) else v for key, v in SMALL.items()})
    model.save_pretrained(tmp_path / "hub")
    told = ["--calibration", str(folder / "calibration.json"), "--unit", "mm", "--output", str(tmp_path / "o.json")]
    pictures = [str(folder / name) for name in NAMES]
    args = [str(tmp_path / "hub"), *pictures, *told, "--unchecked", "--device", "cpu", "--min-confidence", "0"]
    assert (
        main(["predict", "multiview", *args, "--animate", str(tmp_path / "o.gif"), "--frame-rate", "50", "--up", "y"])
        == 0
    )
    assert (tmp_path / "o.gif").read_bytes().startswith(b"GIF")
    found = json.loads((tmp_path / "o.json").read_text())
    assert np.array(found["poses"], dtype=object).shape[:2] == (2, 17)
    assert np.array(found["keypoints"]).shape == (3, 2, 17, 3) and found["frames"] == [7, 8]
    assert "2 poses in" in capsys.readouterr().out


def wrong(kind: str, folder: Path, oracle: Oracle) -> object:
    cameras = read_calibration(folder / "calibration.json", "mm")
    given, boxes = {name: folder / name for name in NAMES}, boxes_of(folder)
    if kind == "one view":
        given = {"cam0": given["cam0"]}
    elif kind == "no camera":
        del cameras["cam1"]
    elif kind == "size":
        cameras["cam1"] = replace(cameras["cam1"], size=(256, 128))
    elif kind == "unreadable":
        (folder / "cam1" / "take2_0008.png").write_bytes(b"no picture")
    elif kind == "lengths":
        frames = {name: [np.zeros((128, 128, 3), np.uint8)] * (2 + (name == "cam1")) for name in NAMES}
        return predict_poses(oracle, frames, cameras, boxes=boxes)
    elif kind == "away":
        turned = np.diag([-1.0, 1.0, -1.0])
        cameras = {name: replace(each, rotation=each.rotation @ turned) for name, each in cameras.items()}
    elif kind == "nobody":
        boxes = {name: np.full((2, 4), np.nan) for name in NAMES}
    elif kind == "two persons":
        two = [[10, 10, 50, 90], [60, 10, 50, 90]]
        (folder / "boxes.json").write_text(json.dumps({f"take2_000{number}.png": two for number in (7, 8)}))
        return predict_poses(oracle, given, cameras, boxes={**boxes, "cam1": read_boxes(folder / "boxes.json")})
    elif kind == "boxes":
        boxes["cam1"] = boxes["cam1"][:1]
    return predict_poses(oracle, given, cameras, boxes=boxes if kind != "one view" else None)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("one view", r"1 views \(cam0\): two or more are needed"),
        ("no camera", "the calibration has no camera cam1; it has cam0, cam2"),
        ("size", r"take2_0007.png is 128 x 128 pixels, and camera cam1 was calibrated on pictures of 256 x 128"),
        ("unreadable", "take2_0008.png: not a picture, or a broken one"),
        ("lengths", "different numbers of pictures: cam0 2, cam1 3, cam2 2"),
        ("away", "only 0 % of the joints .* are where rays of their cameras meet"),
        ("nobody", "0 of the views cam0, cam1, cam2 have a person in some picture"),
        ("two persons", "view cam1: take2_0007.png has 2 boxes, and one person is expected"),
        ("boxes", "view cam1: 1 boxes, and more pictures"),
    ],
)
def test_what_cannot_be_is_said(kind: str, said: str, folder: Path, oracle: Oracle) -> None:
    with pytest.raises(DataError, match=said):
        wrong(kind, folder, oracle)


def test_a_broken_picture_is_a_missing_view_where_that_is_asked(folder: Path, oracle: Oracle) -> None:
    boxes = boxes_of(folder)
    (folder / "cam1" / "take2_0008.png").write_bytes(b"no picture")
    cameras = read_calibration(folder / "calibration.json", "mm")
    given = {name: folder / name for name in NAMES}
    found = predict_poses(oracle, given, cameras, boxes=boxes, broken="skip").found
    assert found.used[1].all(axis=0).tolist() == [True, False, True] and np.isfinite(found.poses).all()


def test_videos_of_one_length_are_matched_by_their_order(folder: Path, oracle: Oracle) -> None:
    cameras = read_calibration(folder / "calibration.json", "mm")
    pictures = {
        name: [cv2.imread(str(each))[..., ::-1] for each in sorted((folder / name).iterdir())] for name in NAMES
    }
    found = predict_poses(oracle, pictures, cameras, boxes=boxes_of(folder)).found
    truth = np.stack([each.pose for each in some().moments if each.pose is not None])
    assert np.abs(found.poses - truth).max() < 1e-3
    with pytest.raises(LiftingDataError, match="view cam1: boxes of shape"):
        predict_poses(oracle, pictures, cameras, boxes={"cam1": np.zeros(4)})


def video(path: Path, frames: int, rate: float) -> Path:
    written = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, (32, 32))
    for _ in range(frames):
        written.write(np.zeros((32, 32, 3), np.uint8))
    written.release()
    return path


def test_videos_of_other_rates_and_lengths_are_refused_before_the_first_moment(tmp_path: Path) -> None:
    front, slow = video(tmp_path / "front.mp4", 20, 30), video(tmp_path / "slow.mp4", 20, 29.97)
    opened = open_views({"front": front, "left": slow})  # 29.97 is what many cameras mean by 30
    assert len(list(opened.moments())) == opened.total == 20
    with pytest.raises(LiftingDataError, match="different numbers of frames a second: front 30, left 60"):
        open_views({"front": front, "left": video(tmp_path / "fast.mp4", 20, 60)})
    longer = open_views({"front": front, "left": video(tmp_path / "longer.mp4", 40, 30)})
    with pytest.raises(LiftingDataError, match="different numbers of pictures: front 20, left 40, as the files say"):
        next(longer.moments())
    assert next(longer.moments("skip"))[0] == 0, "the rest is of one view less"


def test_moments_are_told_by_the_number_that_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, numbers in (("cam1", (31, 32)), ("cam2", (32, 33))):
        (tmp_path / name).mkdir()
        for number in numbers:
            cv2.imwrite(str(tmp_path / name / f"{number:06d}_{name}.jpg"), np.zeros((8, 8, 3), np.uint8))
    caplog.set_level("INFO")
    opened = open_views({name: tmp_path / name for name in ("cam1", "cam2")})
    moments = [(number, list(views)) for number, views in opened.moments()]
    assert opened.total == 3
    assert moments == [(31, ["cam1"]), (32, ["cam1", "cam2"]), (33, ["cam2"])] and "order" not in caplog.text
    for name in ("cam1", "cam2"):
        next(iter((tmp_path / name).iterdir())).rename(tmp_path / name / "x.jpg")
    assert not open_views({name: tmp_path / name for name in ("cam1", "cam2")}).numbered
    assert "pictures of one moment are told by their order in each view" in caplog.text
