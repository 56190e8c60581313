"""`lift` and `triangulate` with something to look at."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("accelerate")

from cycledistill.integrations.human36m.data.cameras import normalize_screen, ring_of_cameras
from cycledistill.integrations.human36m.data.keypoints.person import Keypoints
from cycledistill.integrations.human36m.data.motion import generate_motion
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.recipe import load_recipe
from cycledistill.integrations.human36m.train import train
from cycledistill.integrations.human36m.triangulate import main as triangulate
from cycledistill.integrations.human36m.written.command import (
    Seen,
    add_arguments,
    check_outputs,
    in_world,
    read_camera,
    seen_by,
    write_outputs,
)
from tests.human36m.written.read_back import Gltf, read_bvh

WORLD = generate_motion(1, 10)[0].world.astype(np.float64)
CAMERAS = dict(
    zip(("front", "left"), ring_of_cameras(WORLD[:, 0].mean(axis=0), 4, size=(640, 480), focal=500), strict=False)
)
FRONT = CAMERAS["front"]
LIFTED = FRONT.to_camera(WORLD - WORLD[:, :1] + FRONT.position).astype(np.float32)
SEEN = Seen(FRONT.project(FRONT.to_camera(WORLD)), (640, 480), 25.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A calibration in millimetres, keypoints of both views, and a video of the front one."""
    table = {}
    for name, camera in CAMERAS.items():
        K = np.diag([*camera.focal, 1.0])
        K[:2, 2] = camera.centre
        t = -camera.rotation.T @ camera.position * 1000
        table[name] = {"K": K.tolist(), "R": camera.rotation.T.tolist(), "t": t.tolist(), "size": [640, 480]}
        pixels = camera.project(camera.to_camera(WORLD))
        np.savez(tmp_path / f"{name}.npz", keypoints=pixels, width=640, height=480, fps=25)
    (tmp_path / "cameras.json").write_text(json.dumps(table))
    video = cv2.VideoWriter(str(tmp_path / "v.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
    for _ in WORLD:
        video.write(np.full((48, 64, 3), 90, np.uint8))
    video.release()
    return tmp_path


def options(*flags: Any, lifted: bool = True) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--person-height", type=float)
    add_arguments(parser, lifted=lifted)
    return parser.parse_args([str(flag) for flag in flags])


def test_lifted_poses_stand_on_the_floor_in_all_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: folder / f"a.{name}" for name in ("gif", "bvh", "glb")}
    args = options(
        "--animate", files["gif"], "--bvh", files["bvh"], "--gltf", files["glb"], "--pictures", folder / "v.mp4"
    )
    check_outputs(args)
    write_outputs(LIFTED, args, 25.0, seen=SEEN, world=False)
    said = capsys.readouterr().out
    assert all(f": {file}" in said for file in files.values()) and said.count("bones of constant length") == 2
    with Image.open(files["gif"]) as image:
        assert (image.n_frames, image.size) == (10, (480 + 720, 360))  # type: ignore[attr-defined]
        assert np.median(np.asarray(image.convert("RGB"))[:, :480]) == pytest.approx(90, abs=4)
    place = read_bvh(files["bvh"])[2][4]
    assert min(joint[1] for joint in place.values()) == pytest.approx(0, abs=5)  # centimetres
    assert place["head"][1] > 100
    assert Gltf(files["glb"]).joints(4 / 25)["head"][1] == pytest.approx(place["head"][1] / 100, abs=1e-3)


@pytest.mark.slow
def test_pictures_of_yolos_labels_and_of_another_frame_rate(folder: Path) -> None:
    args = options("--animate", folder / "a.gif", "--pictures", folder / "v.mp4")
    args.width = args.height = args.frame_rate = None  # of `lift`
    numbers = np.arange(1, 11)  # of 10 pictures, as YOLO counts
    labels = Keypoints(SEEN.keypoints.astype(np.float32), 640, 480, 25.0, frames=numbers, first=1)
    inputs = normalize_screen(SEEN.keypoints, 640, 480)
    write_outputs(LIFTED, args, 25.0, seen=seen_by(inputs, labels, args, None), world=False)
    with pytest.raises(LiftingDataError, match=r"v\.mp4 has 25 frames a second, and the keypoints 50: is it the video"):
        write_outputs(LIFTED, args, 50.0, seen=seen_by(inputs, labels, args, None), world=False)
    args.first_picture = 0
    with pytest.raises(LiftingDataError, match="counted from 0, and the keypoints are of picture 10 too.*--first-pict"):
        write_outputs(LIFTED, args, 25.0, seen=seen_by(inputs, labels, args, None), world=False)
    args.first_picture, args.pictures = 0, None
    with pytest.raises(LiftingDataError, match="--first-picture is of --pictures"):
        check_outputs(args)


def test_with_a_camera_poses_are_in_its_world(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = options(
        "--camera", folder / "cameras.json", "--camera-name", "front", "--camera-unit", "mm", "--bvh", "a.bvh"
    )
    placed = in_world(LIFTED, SEEN, given)
    assert np.abs(placed - WORLD).max() < 1e-4
    assert "--camera without --person-height" in caplog.text
    assert in_world(LIFTED, SEEN, options()) is LIFTED
    given.bvh = folder / "a.bvh"
    write_outputs(placed, given, 25.0, seen=SEEN)
    assert "y is taken for the axis that points up" in caplog.text
    place = read_bvh(given.bvh)[2][-1]
    np.testing.assert_allclose(place["pelvis"] / 100, WORLD[-1, 0], atol=1e-4)


def test_a_camera_that_is_not_the_one_is_refused(folder: Path) -> None:
    calibration = folder / "cameras.json"
    for name, size, told in (
        (None, (640, 480), "has the cameras front, left: say which it is, --camera-name"),
        ("back", (640, 480), "has no camera back; it has front, left"),
        ("front", (1280, 960), "calibrated on pictures of 640 x 480, the keypoints' are 1280 x 960"),
    ):
        with pytest.raises(LiftingDataError, match=told):
            read_camera(calibration, name, "mm", size)
    with pytest.raises(LiftingDataError, match="none.json"):
        read_camera(folder / "none.json", None, None, (640, 480))
    with pytest.raises(LiftingDataError, match="front: wherever|front: in .* behind it"):
        in_world(LIFTED[:, :, [1, 0, 2]], SEEN, options("--camera", calibration, "--camera-name", "front"))


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--animate", "a.avi"), "ends in .gif or .mp4"),
        (("--bvh", "a.glb"), "ends in .bvh"),
        (("--gltf", "none/a.glb"), "no folder none"),
        (("--pictures", "v.mp4"), "--pictures is of --animate"),
        (("--camera-name", "front"), "--camera-name is of --camera"),
        (("--up", "z"), "--up is of --camera"),
        (("--animate", "a.gif", "--pictures", "none.mp4"), "none.mp4: there is no such video"),
    ],
    ids=lambda value: value[0].strip("-") if isinstance(value, tuple) else "",
)
def test_options_that_cannot_be_followed_are_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LiftingDataError, match=told):
        check_outputs(options(*flags))


def test_a_rate_that_nobody_says_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(LiftingDataError, match="give --frame-rate"):
        write_outputs(LIFTED, options("--bvh", tmp_path / "a.bvh"), None, world=False)


def test_triangulated_poses_with_holes(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with np.load(folder / "front.npz") as file:
        facts = dict(file)
    facts["keypoints"][3, 5] = np.nan
    np.savez(folder / "front.npz", **facts)
    views = [str(folder / f"{name}.npz") for name in CAMERAS]
    told = ["--calibration", str(folder / "cameras.json"), "--unit", "mm", "--output", str(folder / "p.npz")]
    files = ["--animate", str(folder / "a.mp4"), "--bvh", str(folder / "a.bvh"), "--gltf", str(folder / "a.gltf")]
    assert triangulate([*views, "--layout", "h36m", *told, *files]) == 0
    capture = cv2.VideoCapture(str(folder / "a.mp4"))
    assert (capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)) == (10, 25)
    capture.release()
    assert "1 of 170 joints are not known; BVH and glTF have them from the frames around" in caplog.text
    np.testing.assert_allclose(read_bvh(folder / "a.bvh")[2][0]["pelvis"] / 100, WORLD[0, 0], atol=1e-3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step."""
    folder = tmp_path_factory.mktemp("look") / "run"
    small = {"model.options": {"dim": 16, "depth": 2}, "data.frames": 9, "data.sequences": 2, "data.length": 18}
    small |= {"data.views": 1, "run.max_steps": 1, "run.output": str(folder), "run.progress": False}
    train(load_recipe("frame_token_small", small))
    return folder


@pytest.mark.slow
def test_lift_writes_what_it_is_asked_for(
    run: Path, folder: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from cycledistill.integrations.human36m.lift import main

    given = [folder / "front.npz", folder / "p.npz", "--checkpoint", run, "--layout", "h36m", "--person-height", "1.7"]
    main([str(each) for each in (*given, "--animate", folder / "a.gif", "--pictures", folder / "v.mp4")])
    assert (folder / "a.gif").stat().st_size > 1000 and "animation:" in capsys.readouterr().out
    for flags, told in (
        (("--animate", "a.txt"), "ends in .gif or .mp4"),
        (("--person-height", "170"), "170 cm give 1.7"),
    ):
        with pytest.raises(SystemExit):
            main([*map(str, given), *flags])
        assert told in capsys.readouterr().err
