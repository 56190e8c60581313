"""Keypoint files of several cameras to 3D poses, by the command; what goes wrong with users' own is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cycledistill.commands.frame import main
from cycledistill.integrations.human36m.data.calibration.file import read_calibration
from cycledistill.integrations.human36m.data.cameras import Camera, ring_of_cameras
from cycledistill.integrations.human36m.data.keypoints.files import Keypoints, read_keypoints
from cycledistill.integrations.human36m.data.motion import generate_motion
from cycledistill.integrations.human36m.data.skeleton import COCO_NAMES, HALPE_NAMES, JOINTS, MIRRORED
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.multiview.command.arguments import by_name
from cycledistill.integrations.human36m.multiview.plausible.body import check_limbs
from cycledistill.integrations.human36m.multiview.triangulation import Triangulated
from cycledistill.integrations.human36m.multiview.views import LAYOUTS, poses_from_views

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
    code = main(["predict", "triangulate", *files, *told, *(flags or ("--unit", "mm"))])
    if code:
        raise SystemExit(code)
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


def test_two_cameras_in_front_and_behind_of_one_height_and_distance() -> None:
    """Their t is the same, and taken for positions would be one place, in which all rays meet."""
    middle = WORLD[:, 0].mean(axis=0)
    front, behind = (ring_of_cameras(middle, 5, first_angle=0.3, height=1.2)[place] for place in (0, 2))
    cameras = {"front": front, "behind": behind}
    rng = np.random.default_rng(0)
    seen = {
        name: Keypoints(np.float32(each.project(each.to_camera(WORLD)) + rng.normal(0, 2, (*WORLD.shape[:2], 2))))
        for name, each in cameras.items()
    }
    for shift in (middle, 0):  # the first: about the origin, as boards on the floor make it
        moved = {name: replace(each, position=each.position - shift) for name, each in cameras.items()}
        found = poses_from_views(seen, moved, layout="h36m")
        assert np.nanmedian(np.linalg.norm(found.poses - (WORLD - shift), axis=-1)) < 0.05


def test_files_say_their_joints_and_whether_they_are_shares(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """mmpose's of Human3.6M's joints, as its meta_info says; YOLO's labels, of COCO's and in shares of the picture."""
    root = {"keypoint_id2name": {str(joint): name for joint, name in enumerate(("root", *JOINTS[1:]))}}
    for name, view in views().items():
        seen = np.load(folder / f"{name}.npz")["keypoints"]
        frames = [
            {"frame_id": n, "instances": [{"keypoints": each.tolist(), "keypoint_scores": [1.0] * 17}]}
            for n, each in enumerate(np.nan_to_num(seen))
        ]
        (folder / f"{name}.json").write_text(json.dumps({"meta_info": root, "instance_info": frames}))
        (folder / name).mkdir()
        for number, points in enumerate(view.pixels, 1):
            line = [0, 0.5, 0.5, 0.2, 0.5, *np.concatenate([points / 1000, np.ones((17, 1))], axis=1).ravel()]
            (folder / name / f"v_{number}.txt").write_text(" ".join(f"{each:.6f}" for each in line))
    told = ["--unit", "mm", "--width", "1000", "--height", "1000", "--output", str(folder / "p.npz")]
    calibration = ["--calibration", str(folder / "cameras.yml"), *told]
    assert main(["predict", "triangulate", *(str(folder / f"{name}.json") for name in NAMES), *calibration]) == 0
    assert np.abs(np.load(folder / "p.npz")["poses"] - WORLD).max() < 1e-4
    assert main(["predict", "triangulate", str(folder / "a.json"), str(folder / "b"), *calibration]) == 2
    assert "the files are of different orders of joints: a h36m, b coco; --layout says" in capsys.readouterr().err
    labels = {name: read_keypoints(folder / name) for name in NAMES}
    found = poses_from_views(labels, CAMERAS, layout=None)  # the cameras without distortion, which made these
    assert np.abs(found.poses - WORLD).max() < 1e-4


@pytest.mark.parametrize(
    ("flags", "names", "said"),
    [
        (("--unit", "m"), NAMES, r"the person is 1[.\d]+e\+03 m large: .* It looks like mm. Give the unit \(--unit mm"),
        (("--unit", "yards"), NAMES, "unit='yards'"),
        (("--unit", "mm"), ("a",), r"1 views \(a\): two or more are needed"),
        (("--unit", "mm", "--width", "900", "--height", "900"), NAMES, "are 1000 pixels wide, .* of 900 x 900"),
        (("--unit", "mm", "--track-id", "x=3"), NAMES, "there is no view x; views: a, b, c"),
        (("--unit", "mm", "--track-id", "a=3"), ("a", "b"), "view a: .* has no track 3"),
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


LONG = generate_motion(1, 60, seed=3)[0].world.astype(np.float64)


def seen_long(noise: float = 1.0, missing: float = 0.0, names: tuple[str, ...] = NAMES) -> dict[str, np.ndarray]:
    """A longer clip by the same cameras, with a detector's errors."""
    random, found = np.random.default_rng(0), {}
    for name in names:
        pixels = CAMERAS[name].project(CAMERAS[name].to_camera(LONG)) + random.normal(0, noise, (*LONG.shape[:2], 2))
        pixels[random.random(pixels.shape[:2]) < missing] = np.nan
        found[name] = pixels.astype(np.float32)
    return found


def from_long(pixels: dict[str, np.ndarray], **options: Any) -> np.ndarray:
    given = {name: Keypoints(each, 1000, 1000) for name, each in pixels.items()}
    return poses_from_views(given, CAMERAS, **{"layout": "h36m", **options}).poses


@pytest.mark.parametrize("names", [("a", "b"), NAMES])
def test_a_view_of_other_moments_is_refused_with_its_shift(names: tuple[str, ...]) -> None:
    pixels = seen_long(names=names)
    early = {name: each[10:] if name == "b" else each[:-10] for name, each in pixels.items()}  # b began 10 frames late
    moved = np.linalg.norm(from_long(early, checked=False) - LONG[:-10], axis=-1)
    assert len(names) > 2 or np.nanmean(moved) > 0.05  # what passed in silence
    with pytest.raises(
        LiftingDataError, match="do not meet as they could: .*once view (a|b) is (9|10|11) frames (earlier|later)"
    ):
        from_long(early)


def test_cameras_that_started_a_frame_apart_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    pixels = seen_long(0.1)
    from_long({name: each[1:] if name == "b" else each[:-1] for name, each in pixels.items()})
    assert "once view b is 1 frames later" in caplog.text and "were the cameras started together" in caplog.text


@pytest.mark.parametrize("layout", ["h36m", "coco", "halpe26"])
def test_sides_exchanged_in_one_view_are_refused(layout: str) -> None:
    pixels = seen_long(names=("a", "b"))
    order = list(MIRRORED)
    if layout != "h36m":  # COCO's and Halpe's places of the joints that Human3.6M has too
        places = [10, 9, 9, 9, 9, 11, 14, 12, 15, 13, 16, 4, 1, 5, 2, 6, 3, *[10, 8, 0, 6, 3, 6, 3, 6, 3]]
        places = places[: LAYOUTS[layout]]
        pixels = {name: each[:, places] for name, each in pixels.items()}
        names = [f"{name}" for name in (COCO_NAMES if layout == "coco" else HALPE_NAMES)]
        swap = str.maketrans({"L": "R", "R": "L"})
        short = [name.replace("left", "L").replace("right", "R") for name in names]
        order = [short.index(name.translate(swap)) for name in short]
    assert np.isfinite(from_long(pixels, layout=layout)).all()
    with pytest.raises(LiftingDataError, match="once left and right joints of view [ab] are exchanged"):
        from_long({**pixels, "b": pixels["b"][:, order]}, layout=layout)


def test_two_of_three_views_exchanged_are_named() -> None:
    pixels = seen_long()
    with pytest.raises(LiftingDataError, match="once a and c are exchanged"):
        from_long({"a": pixels["c"], "b": pixels["b"], "c": pixels["a"]})


def test_half_of_the_views_left_out_are_refused() -> None:
    ring = {each.name: each for each in ring_of_cameras(LONG[:, 0].mean(axis=0), 4, first_angle=0.3)}
    given = {name: each.project(each.to_camera(LONG)).astype(np.float32) for name, each in ring.items()}
    for name in list(ring)[:2]:  # of somebody else each
        given[name] = given[name] + np.array([60, 90], np.float32)
    given[next(iter(ring))][..., 1] -= 200
    with pytest.raises(LiftingDataError, match="2 of 4 views .* nothing says which are right"):
        poses_from_views({name: Keypoints(each, *ring[name].size) for name, each in given.items()}, ring, layout="h36m")


def test_what_meets_and_is_no_body_is_refused() -> None:
    """All rays meet, of somebody who is small and large in turns."""
    size = np.where(np.arange(len(WORLD)) % 2, 1.3, 0.7)[:, None, None]
    world = WORLD[:, :1] + size * (WORLD - WORLD[:, :1])
    seen = {name: Keypoints(np.float32(each.project(each.to_camera(world)))) for name, each in CAMERAS.items()}
    with pytest.raises(LiftingDataError, match="arms and legs change their lengths"):
        poses_from_views(seen, CAMERAS, layout="h36m")
    assert np.abs(poses_from_views(seen, CAMERAS, layout="h36m", checked=False).poses - world).max() < 1e-3


def test_limbs_that_change_or_differ_are_no_body() -> None:
    cameras, shape = list(CAMERAS.values()), LONG.shape[:2]
    sure = Triangulated(LONG, np.full(shape, 1.0), np.ones((3, *shape), np.bool_))
    check_limbs(sure, cameras, "h36m")
    sizes = np.random.default_rng(0).uniform(0.5, 1.5, (len(LONG), 1, 1))
    other = replace(sure, points=LONG[:, :1] + sizes * (LONG - LONG[:, :1]))
    with pytest.raises(LiftingDataError, match="arms and legs change their lengths .* of the same moments"):
        check_limbs(other, cameras, "h36m")
    check_limbs(replace(other, error=np.full(shape, 60.0)), cameras, "h36m")  # explained by the pixels
    left = LONG.copy()
    left[:, [12, 13, 5, 6]] = LONG[:, [11, 11, 4, 4]] + 0.5 * (LONG[:, [12, 13, 5, 6]] - LONG[:, [11, 11, 4, 4]])
    with pytest.raises(LiftingDataError, match="arms and legs differ between left and right"):
        check_limbs(replace(sure, points=left), cameras, "h36m")


@pytest.mark.parametrize("frames", [1, 2, 3, 60])
@pytest.mark.parametrize("kind", ["noise", "arm", "still"])
def test_bad_detections_of_the_right_views_pass(kind: str, frames: int) -> None:
    random = np.random.default_rng(frames)
    pixels = {name: each[:frames] for name, each in seen_long(5, 0.2).items()}
    if kind == "arm":
        pixels["a"][:, 11:14] += random.normal(0, 60, (frames, 3, 2)).astype(np.float32)
    if kind == "still":
        still = {n: each.project(each.to_camera(LONG[:1])) for n, each in CAMERAS.items()}
        pixels = {n: (each + random.normal(0, 5, (frames, 17, 2))).astype(np.float32) for n, each in still.items()}
    assert np.isfinite(from_long(pixels)).any()


def test_halpe_has_its_own_layout(folder: Path, tmp_path: Path) -> None:
    for name in NAMES:
        with np.load(folder / f"{name}.npz") as given:
            own = dict(given)
        own["keypoints"] = np.concatenate([own["keypoints"], own["keypoints"][:, :9]], axis=1)
        np.savez(folder / f"{name}.npz", **own)
    assert run(folder, "--unit", "mm", "--layout", "halpe26", "--unchecked")["poses"].shape == (12, 26, 3)


def test_names_and_paths_with_an_equals_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run=1").mkdir()
    Path("run=1/front.npz").touch()
    given = ["run=1/front.npz", "left=run=1/front.npz", "right=other.npz"]
    expected = {"front": "run=1/front.npz", "left": "run=1/front.npz", "right": "other.npz"}
    assert by_name(given, "keypoints") == expected


def test_a_rotation_vector_in_degrees_is_refused(tmp_path: Path) -> None:
    R, t, K = opencv(CAMERAS["a"])
    degrees = np.rad2deg(cv2.Rodrigues(R)[0].ravel()).tolist()
    own = {"K": K.tolist(), "R": degrees, "t": t.tolist(), "width": 1000, "height": 1000}
    (tmp_path / "c.json").write_text(json.dumps({"a": own}))
    with pytest.raises(LiftingDataError, match="rotation vector, in radians, .* in degrees"):
        read_calibration(tmp_path / "c.json", "mm")


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


def test_rates_that_are_rounded_and_pictures_that_count_from_1_are_of_one_moment() -> None:
    numbers = np.arange(12)
    seen = {name: replace(view, frame_rate=30, frames=numbers) for name, view in views().items()}
    seen["b"] = replace(seen["b"], frame_rate=29.97, frames=numbers + 1, first=1)  # YOLO's labels of a video
    found = poses_from_views(seen, CAMERAS, layout="h36m")
    assert found.frames is not None and found.frames.tolist() == numbers.tolist()
    assert np.abs(found.poses - WORLD).max() < 1e-4
    from_1 = {name: replace(view, frames=numbers + 1, first=1) for name, view in views().items()}
    found = poses_from_views(from_1, CAMERAS, layout="h36m")
    assert found.frames is not None and found.frames.tolist() == (numbers + 1).tolist()


def test_other_skeletons_and_unchecked_ones() -> None:
    some = {name: view.pixels[:, :5] for name, view in views().items()}
    found = poses_from_views(views(pixels=some), CAMERAS, layout=None)
    assert np.abs(found.poses - WORLD[:, :5]).max() < 1e-4
    with pytest.raises(LiftingDataError, match="5 joints, where the layout 'coco' has 17"):
        poses_from_views(views(pixels=some), CAMERAS)
    own = {name: replace(each, position=each.position * 1000) for name, each in CAMERAS.items()}
    assert np.abs(poses_from_views(views(), own, checked=False).poses - WORLD * 1000).max() < 0.5
