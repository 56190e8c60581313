"""Keypoint files of several cameras to 3D poses, by the command; what goes wrong with users' own is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cycledistill.integrations.human36m.data.cameras import Camera, ring_of_cameras
from cycledistill.integrations.human36m.data.keypoints.files import Keypoints
from cycledistill.integrations.human36m.data.motion import generate_motion
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.multiview.views import poses_from_views
from cycledistill.integrations.human36m.triangulate import main

NAMES = ("a", "b", "c")
DIST = np.array([-0.2, 0.05, 0.001, -0.002])
WORLD = generate_motion(1, 12)[0].world.astype(np.float64)
CAMERAS = {
    name: ring_of_cameras(WORLD[:, 0].mean(axis=0), 3, first_angle=0.3, height=height)[place]
    for place, (name, height) in enumerate(zip(NAMES, (0.7, 2.0, 0.2), strict=True))
}


def opencv(camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """R, t in millimetres, K."""
    K = np.diag([*camera.focal, 1.0])
    K[:2, 2] = camera.centre
    return camera.rotation.T, -camera.rotation.T @ camera.position * 1000, K


def views(**other: Any) -> dict[str, Keypoints]:
    """What the three cameras, without distortion, see."""
    found = {}
    for name, camera in CAMERAS.items():
        pixels = camera.project(camera.to_camera(WORLD)).astype(np.float32)
        found[name] = Keypoints(pixels, 1000, 1000)
    return {name: replace(view, **{key: value[name] for key, value in other.items()}) for name, view in found.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A keypoint file a view and a calibration, all made by OpenCV."""
    file = cv2.FileStorage(str(tmp_path / "cameras.yml"), cv2.FILE_STORAGE_WRITE)
    for name, camera in CAMERAS.items():
        R, t, K = opencv(camera)
        for key, value in {"K": K, "dist": DIST, "R": cv2.Rodrigues(R)[0], "T": t}.items():
            file.write(f"{key}_{name}", value)
        pixels = cv2.projectPoints(WORLD.reshape(-1, 3) * 1000, R, t, K, DIST)[0].reshape(*WORLD.shape[:2], 2)
        if name == "b":
            pixels[3, 5] = np.nan
        np.savez(tmp_path / f"{name}.npz", keypoints=pixels, width=1000, height=1000)
    file.release()
    return tmp_path


def run(folder: Path, *flags: str, names: tuple[str, ...] = NAMES, output: str = "poses.npz") -> dict[str, np.ndarray]:
    files = [str(folder / f"{name}.npz") for name in names]
    told = ["--calibration", str(folder / "cameras.yml"), "--layout", "h36m", "--output", str(folder / output)]
    assert main([*files, *told, *(flags or ("--unit", "mm"))]) == 0
    return dict(np.load(folder / output)) if output.endswith("npz") else json.loads((folder / output).read_text())


def test_three_views_become_poses_in_metres(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(folder)
    assert np.abs(found["poses"] - WORLD).max() < 1e-4
    assert found["error"].max() < 0.01
    assert found["views"].tolist() == ["a", "b", "c"]
    assert found["used"].sum() == 3 * 12 * 17 - 1 and not found["used"][3, 5, 1]
    said = capsys.readouterr().out
    assert "12 poses in" in said and "100.0 % of the joints are known" in said and "view b: used for 99.5 %" in said


def test_json_has_null_for_what_is_not_known(folder: Path) -> None:
    found = run(folder, "--unit", "0.001", "--min-views", "3", output="poses.json")
    assert found["poses"][3][5] == [None, None, None] and found["error"][3][5] is None
    assert np.abs(np.array(found["poses"][4]) - WORLD[4]).max() < 1e-4


def test_one_missing_view_does_not_block(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "c.npz").unlink()
    found = run(folder)
    assert found["views"].tolist() == ["a", "b"]
    assert "view c: " in caplog.text and "the view is left out" in caplog.text
    assert np.isnan(found["poses"][3, 5]).all()  # one view is left of it
    assert np.nanmax(np.abs(found["poses"] - WORLD)) < 1e-4


@pytest.mark.parametrize(
    ("flags", "names", "said"),
    [
        (("--unit", "m"), NAMES, r"the person is 1[.\d]+e\+03 m large: .* It looks like mm. Give the unit \(--unit mm"),
        (("--unit", "yards"), NAMES, "unit='yards'"),
        (("--unit", "mm"), ("a",), r"1 views \(a\): two or more are needed"),
        (("--unit", "mm", "--width", "900", "--height", "900"), NAMES, "are 1000 pixels wide, .* of 900 x 900"),
        (("--unit", "mm", "--track", "x=3"), NAMES, "there is no view x; views: a, b, c"),
        (("--unit", "mm", "--track", "a=3"), ("a", "b"), "view a: .* has no track 3"),
        (("--unit", "mm"), ("a", "a"), "a is given twice"),
    ],
    ids=["no unit", "unit", "one view", "picture size", "track of no view", "no such track", "twice"],
)
def test_bad_input_ends_in_words(
    flags: tuple[str, ...], names: tuple[str, ...], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(folder, *flags, names=names)
    assert not (folder / "poses.npz").exists()
    message = capsys.readouterr().err
    with pytest.raises(LiftingDataError, match=said):
        raise LiftingDataError(message)


def test_frames_are_matched_by_their_numbers() -> None:
    cut = {name: view.pixels[start:] for (name, view), start in zip(views().items(), (0, 2, 5), strict=True)}
    numbers = {name: np.arange(100 + 12 - len(pixels), 112) for name, pixels in cut.items()}
    found = poses_from_views(views(pixels=cut, frames=numbers), CAMERAS, layout="h36m")
    assert found.frames is not None and found.frames.tolist() == list(range(100, 112))
    assert np.isnan(found.poses[:2]).all()
    assert np.abs(found.poses[2:] - WORLD[2:]).max() < 1e-4
    assert found.used[2:5].all(axis=(0, 1)).tolist() == [True, True, False]
    apart = {name: 100 * place + np.arange(12) for place, name in enumerate(NAMES)}
    with pytest.raises(LiftingDataError, match="no joint is found in two of the views a, b, c in one frame"):
        poses_from_views(views(frames=apart), CAMERAS, layout="h36m")


def test_a_view_of_somebody_else_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    found = poses_from_views(
        views(pixels={name: view.pixels + 80 * (name == "b") for name, view in views().items()}), CAMERAS, layout="h36m"
    )
    assert np.abs(found.poses - WORLD).max() < 1e-4 and not found.used[..., 1].any()
    assert "view b agrees with the others on 0 %" in caplog.text


def bad(kind: str) -> tuple[dict[str, Keypoints], dict[str, Camera]]:
    seen, cameras = views(), dict(CAMERAS)
    if kind == "no camera":
        del cameras["b"]
    elif kind == "lengths":
        seen["b"] = replace(seen["b"], pixels=seen["b"].pixels[:-1])
    elif kind == "rates":
        seen = {
            name: replace(view, frame_rate=rate) for (name, view), rate in zip(seen.items(), (50, 25, 50), strict=True)
        }
    elif kind == "joints":
        seen["b"] = replace(seen["b"], pixels=seen["b"].pixels[:, :16])
    elif kind == "size":
        seen["b"] = replace(seen["b"], width=500, height=500)
    elif kind == "shares":
        seen["b"] = replace(seen["b"], pixels=seen["b"].pixels / 1000)
    elif kind == "turned":
        cameras = {
            name: Camera.from_opencv(name, each.rotation, each.position, opencv(each)[2], each.size)
            for name, each in cameras.items()
        }
    elif kind == "exchanged":
        seen = {"a": seen["b"], "b": seen["a"]}
    elif kind == "away":  # another room
        cameras = {n: replace(each, rotation=each.rotation @ np.diag([-1, 1, -1])) for n, each in cameras.items()}
    elif kind == "confidence":
        seen["b"] = replace(seen["b"], pixels=np.concatenate([seen["b"].pixels, np.full((12, 17, 1), 87)], axis=-1))
    return seen, cameras


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("no camera", "the calibration has no camera b; it has a, c"),
        ("lengths", "different numbers of frames: a 12, b 11, c 12; which are of one moment"),
        ("rates", "different numbers of frames a second: a 50, b 25, c 50"),
        ("joints", "different numbers of joints: a 17, b 16, c 17"),
        ("size", "view b: its pictures are 500 pixels wide, and its camera was calibrated on those of 1000 x 1000"),
        ("shares", "view b: .*shares of the picture"),
        ("turned", "they meet with R and t taken for the cameras' rotation and position"),
        ("exchanged", "miss each other by .* they meet once a and b are exchanged"),
        ("away", "only 0 % of the joints .* are the views of one person"),
        ("confidence", "view b: confidences from 1 to 87|view b: confidences from 87 to 87"),
    ],
)
def test_views_and_cameras_that_do_not_belong_together(kind: str, said: str) -> None:
    seen, cameras = bad(kind)
    with pytest.raises(LiftingDataError, match=said):
        poses_from_views(seen, cameras, layout="h36m")


def test_other_skeletons_and_unchecked_ones() -> None:
    some = {name: view.pixels[:, :5] for name, view in views().items()}
    found = poses_from_views(views(pixels=some), CAMERAS, layout=None)
    assert np.abs(found.poses - WORLD[:, :5]).max() < 1e-4
    with pytest.raises(LiftingDataError, match="5 joints, where the layout 'coco' has 17"):
        poses_from_views(views(pixels=some), CAMERAS)
    own = {name: replace(each, position=each.position * 1000) for name, each in CAMERAS.items()}
    assert np.abs(poses_from_views(views(), own, checked=False).poses - WORLD * 1000).max() < 0.5
