"""`lift` and `triangulate` with something to look at."""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("accelerate")

from cycledistill.commands.frame import main
from cycledistill.integrations.human36m.commands import add_written
from cycledistill.integrations.human36m.data.cameras import ring_of_cameras
from cycledistill.integrations.human36m.data.motion import generate_motion
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.recipe import load_recipe
from cycledistill.integrations.human36m.train import train
from cycledistill.integrations.human36m.written.command import write_outputs
from cycledistill.integrations.human36m.written.outputs import Outputs, Seen, check_clip, check_outputs
from cycledistill.integrations.human36m.written.world import in_world, read_camera
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


def options(*flags: Any, lifted: bool = True) -> Outputs:
    parser = argparse.ArgumentParser()
    add_written(parser, lifted=lifted)
    return Outputs(**vars(parser.parse_args([str(flag) for flag in flags])))


def test_lifted_poses_stand_on_the_floor_in_all_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: folder / f"a.{name}" for name in ("gif", "bvh", "glb")}
    args = options(
        "--animate", files["gif"], "--bvh", files["bvh"], "--gltf", files["glb"], "--pictures", folder / "v.mp4"
    )
    check_outputs(args)
    write_outputs(LIFTED, args, 25.0, seen=SEEN)
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
    asked = options("--animate", folder / "a.gif", "--pictures", folder / "v.mp4")
    labels = replace(SEEN, numbers=np.arange(1, 11), first=1)  # of 10 pictures, as YOLO counts
    check_clip(asked, 25.0, labels)
    write_outputs(LIFTED, asked, 25.0, seen=labels)
    with pytest.raises(LiftingDataError, match=r"v\.mp4 has 25 frames a second, and the keypoints 50: is it the video"):
        check_clip(asked, 50.0, labels)
    check_clip(replace(asked, insisted=True), 50.0, labels)
    with pytest.raises(LiftingDataError, match="counted from 0, and the keypoints are of picture 10 too.*--first-pict"):
        check_clip(asked, 25.0, replace(labels, first=0))
    with pytest.raises(LiftingDataError, match="--first-picture is of --pictures"):
        check_outputs(replace(asked, pictures=None, first_picture=0))


def test_with_a_camera_poses_are_in_its_world(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = options(
        "--calibration", folder / "cameras.json", "--camera-name", "front", "--unit", "mm", "--bvh", "a.bvh"
    )
    seen = replace(SEEN, camera=read_camera(given, SEEN.size))
    placed = in_world(LIFTED, seen, given)
    assert np.abs(placed - WORLD).max() < 1e-4
    assert in_world(LIFTED, SEEN, options()) is LIFTED and read_camera(options(), SEEN.size) is None
    assert "WARNING" not in caplog.text
    write_outputs(placed, replace(given, bvh=folder / "a.bvh"), 25.0, seen=seen)
    assert "y is taken for the axis that points up" in caplog.text
    place = read_bvh(folder / "a.bvh")[2][-1]
    np.testing.assert_allclose(place["pelvis"] / 100, WORLD[-1, 0], atol=1e-4)


def test_a_camera_that_is_not_the_one_is_refused(folder: Path) -> None:
    calibration = folder / "cameras.json"
    for name, size, told in (
        (None, (640, 480), "has the cameras front, left: say which it is, --camera-name"),
        ("back", (640, 480), "has no camera back; it has front, left"),
        ("front", (1280, 960), "calibrated on pictures of 640 x 480, the keypoints' are 1280 x 960"),
    ):
        with pytest.raises(LiftingDataError, match=told):
            read_camera(Outputs(calibration=(calibration,), camera_name=name, unit="mm"), size)
    with pytest.raises(LiftingDataError, match="none.json"):
        read_camera(Outputs(calibration=(folder / "none.json",)), (640, 480))
    seen = replace(SEEN, camera=FRONT)
    with pytest.raises(LiftingDataError, match="front: wherever|front: in .* behind it|0: wherever|0: in .* behind it"):
        in_world(LIFTED[:, :, [1, 0, 2]], seen, Outputs())


def test_keypoints_are_of_the_camera_that_they_are_called_as(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked = Outputs(calibration=(folder / "cameras.json",), unit="mm")
    with caplog.at_level(logging.INFO):
        found = read_camera(asked, SEEN.size, "left")
        assert found is not None and found.name == "left" and "camera left of" in caplog.text
        caplog.clear()
        found = read_camera(replace(asked, camera_name="front"), SEEN.size, "left")
        assert found is not None and found.name == "front"
    assert "the keypoints are called as camera left" in caplog.text
    with pytest.raises(LiftingDataError, match="say which it is, --camera-name"):
        read_camera(asked, SEEN.size, "keypoints")


@pytest.mark.parametrize(("scale", "unit"), [(1000, "mm"), (100, "cm")])
def test_a_world_in_another_unit_is_refused(scale: float, unit: str, caplog: pytest.LogCaptureFixture) -> None:
    """A calibration in millimetres or centimetres, taken for metres: the person would be kilometres away."""
    far = replace(FRONT, position=FRONT.position * scale)
    seen = replace(SEEN, camera=far)
    with pytest.raises(LiftingDataError, match=rf"m from the origin .* in {unit}\? Say so \(--unit {unit}\)"):
        in_world(LIFTED, seen, Outputs())
    assert not caplog.text
    placed = in_world(LIFTED, seen, Outputs(unit="m"))  # who says so is believed
    np.testing.assert_allclose(placed[0, 0], WORLD[0, 0] + far.position - FRONT.position, atol=0.01)
    assert f"is the calibration in {unit}?" in caplog.text
    caplog.clear()
    in_world(LIFTED, replace(SEEN, camera=replace(FRONT, position=FRONT.position / 1000)), Outputs(unit="mm"))
    assert "in a larger unit than was said?" in caplog.text


def test_a_world_may_be_large_or_the_cameras_own(caplog: pytest.LogCaptureFixture) -> None:
    for position in ([60, 2, 0], [0, 0, 0], [0.06, 0, 0]):  # a pitch; the camera is the origin; the second of a pair
        in_world(LIFTED, replace(SEEN, camera=replace(FRONT, position=np.array(position, float))), Outputs())
    assert "WARNING" not in caplog.text


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--animate", "a.avi"), "ends in .gif or .mp4"),
        (("--bvh", "a.glb"), "ends in .bvh"),
        (("--gltf", "none/a.glb"), "no folder none"),
        (("--pictures", "v.mp4"), "--pictures is of --animate"),
        (("--camera-name", "front"), "--camera-name is of --calibration"),
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
    asked = options("--bvh", tmp_path / "a.bvh")
    for refuse in (lambda: check_clip(asked, None), lambda: write_outputs(LIFTED, asked, None, seen=SEEN)):
        with pytest.raises(LiftingDataError, match="give --frame-rate"):
            refuse()
    check_clip(options(), None)


def test_joints_without_a_skeleton_are_refused_first(tmp_path: Path) -> None:
    for name in ("bvh", "gltf", "animate"):
        suffix = {"gltf": "glb", "animate": "gif"}.get(name, name)
        asked = options(f"--{name}", tmp_path / f"a.{suffix}", lifted=False)
        check_outputs(replace(asked, joints="halpe26"))
        with pytest.raises(
            LiftingDataError, match=f"--{name} with the joints 'other': skeletons of h36m, coco, halpe26 al"
        ):
            check_outputs(replace(asked, joints="other"))


def test_pictures_that_do_not_fit_are_refused_first(folder: Path) -> None:
    asked = Outputs(animate=folder / "a.gif", pictures=folder / "v.mp4")
    check_clip(asked, 25.0, SEEN)
    late = replace(SEEN, numbers=np.arange(3, 13))
    with pytest.raises(
        LiftingDataError, match="has 10 pictures, counted from 0, and the keypoints are of picture 12 too"
    ):
        check_clip(asked, 25.0, late)
    with pytest.raises(LiftingDataError, match="picture 0 is 64 x 48 pixels, the keypoints' is 480 x 640"):
        check_clip(asked, 25.0, replace(SEEN, size=(480, 640)))
    (folder / "pictures").mkdir()
    with pytest.raises(LiftingDataError, match="no picture is in this folder"):
        check_clip(replace(asked, pictures=folder / "pictures"), 25.0, SEEN)


def test_commands_refuse_before_they_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is triangulated and nothing lifted for what cannot be written."""
    from cycledistill.integrations.human36m import lift as lifting
    from cycledistill.integrations.human36m import triangulate as views
    from cycledistill.integrations.human36m.evaluation.measure import EvalSettings
    from cycledistill.integrations.human36m.lifting import models
    from cycledistill.integrations.human36m.models.registry import create_lifter

    def worked(*_: Any, **__: Any) -> None:
        raise AssertionError("the work was begun")

    monkeypatch.setattr(views, "poses_from_views", worked)
    monkeypatch.setattr(lifting, "lift", worked)
    small = create_lifter("mixste", frames=9, dim=16, depth=2)
    small.convention = replace(small.convention, frame_rate=None)
    monkeypatch.setattr(models, "open_model", lambda *_: (small, EvalSettings(9)))
    for name in CAMERAS:
        with np.load(folder / f"{name}.npz") as file:
            np.savez(folder / f"{name}.npz", **{key: file[key] for key in file.files if key != "fps"})
    calibration = ["--calibration", folder / "cameras.json", "--unit", "mm", "--output", folder / "p.npz"]
    both = [folder / "front.npz", folder / "left.npz", *calibration]
    one = ["human36m", "x", folder / "front.npz", "--output", folder / "p.npz", "--layout", "h36m", "--device", "cpu"]
    bvh, gif = ["--bvh", folder / "a.bvh"], ["--animate", folder / "a.gif", "--frame-rate", "25"]
    late = [*one[:2], folder / "late.npz", *one[3:]]
    np.savez(folder / "late.npz", keypoints=SEEN.keypoints, width=640, height=480, first_frame=5)
    camera = ["--calibration", folder / "cameras.json", "--person-height", "1.7"]
    film = ["--animate", folder / "a.gif", "--pictures", folder / "v.mp4", "--frame-rate", "25"]
    for words, told in (
        (["triangulate", *both, "--layout", "other", *bvh], "--bvh with the joints 'other'"),
        (["triangulate", *both, "--layout", "h36m", *bvh], "give --frame-rate"),
        (["triangulate", *both, "--layout", "h36m", "--frame-rate", "0.04"], "1 / 0.04 = 25"),
        ([*one, *bvh], "give --frame-rate"),
        ([*one, "--frame-rate", "0.04"], "1 / 0.04 = 25"),
        ([*late, *gif, "--pictures", folder / "v.mp4"], "the keypoints are of picture 14 too"),
        ([*one, *camera, "--camera-name", "back"], "has no camera back"),
        ([*one, "--up", "z"], "--up is of --calibration"),
        ([*one, "--person-height", "170"], "170 cm give 1.7"),
        ([*one, "--figure", folder / "a.txt"], "a.txt: a name that ends in"),
        ([*one[:4], one[2], *one[5:]], "front.npz is read, and would be written over"),
        ([*one, *film[:1], film[3], *film[2:]], "v.mp4 is read, and would be written over"),
        ([*one, *film, "--figure", film[1]], "a.gif would be written twice"),
        (["triangulate", *both[:-1], folder / "left.npz"], "left.npz is read, and would be written over"),
    ):
        assert main(["predict", *map(str, words)]) == 2
        assert told in capsys.readouterr().err
        assert not (folder / "p.npz").exists()
    with np.load(folder / "front.npz") as file:
        assert "keypoints" in file


def test_triangulated_poses_with_holes(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with np.load(folder / "front.npz") as file:
        facts = dict(file)
    facts["keypoints"][3, 5] = np.nan
    np.savez(folder / "front.npz", **facts)
    views = [str(folder / f"{name}.npz") for name in CAMERAS]
    told = ["--calibration", str(folder / "cameras.json"), "--unit", "mm", "--output", str(folder / "p.npz")]
    files = ["--animate", str(folder / "a.mp4"), "--bvh", str(folder / "a.bvh"), "--gltf", str(folder / "a.gltf")]
    assert main(["predict", "triangulate", *views, "--layout", "h36m", *told, *files]) == 0
    capture = cv2.VideoCapture(str(folder / "a.mp4"))
    assert (capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)) == (10, 25)
    capture.release()
    assert "1 of 170 joints are not known; BVH and glTF have them from the frames around" in caplog.text
    np.testing.assert_allclose(read_bvh(folder / "a.bvh")[2][0]["pelvis"] / 100, WORLD[0, 0], atol=1e-3)


def test_pictures_that_are_missing_between_others_are_told_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked = Outputs(bvh=folder / "b.bvh", up="y")
    write_outputs(WORLD[:3], asked, 25.0, frames=np.array([4, 6, 8]))
    assert "follow each other" not in caplog.text
    write_outputs(WORLD[:3], asked, 25.0, frames=np.array([4, 5, 9]))
    assert "pictures 5 and 9 follow each other" in caplog.text


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
    given = ["predict", "human36m", run, folder / "front.npz", "--output", folder / "p.npz", "--layout", "h36m"]
    given += ["--person-height", "1.7"]
    film = ["--animate", folder / "a.gif", "--pictures", folder / "v.mp4"]
    assert main([str(each) for each in (*given, *film)]) == 0
    assert (folder / "a.gif").stat().st_size > 1000 and "animation:" in capsys.readouterr().out
    for flags, told in (
        (("--animate", "a.txt"), "ends in .gif or .mp4"),
        (("--person-height", "170"), "170 cm give 1.7"),
    ):
        assert main([*map(str, given), *flags]) == 2
        assert told in capsys.readouterr().err
