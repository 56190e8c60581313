"""Normalisation, cameras, files of Human3.6M's form, the CMU pack, clips and what is refused."""

from __future__ import annotations

import json
import logging
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cycledistill.integrations.human36m.data.cameras import Camera, normalize_screen, read_cameras, ring_of_cameras
from cycledistill.integrations.human36m.data.clips import check_keypoints, film
from cycledistill.integrations.human36m.data.cmu import load_cmu, whole_pieces
from cycledistill.integrations.human36m.data.h36m import DAMAGED, TEST_SUBJECTS, Human36M
from cycledistill.integrations.human36m.data.motion import generate_motion
from cycledistill.integrations.human36m.data.npz import main as convert_main
from cycledistill.integrations.human36m.data.npz import open_npz, read_tree
from cycledistill.integrations.human36m.data.skeleton import coco_to_h36m, from_markers, mirror
from cycledistill.integrations.human36m.errors import LiftingDataError

GOLDEN = Path(__file__).parents[2] / "golden" / "metrics.npz"
CMU = Path(__file__).parents[4] / "shared" / "data" / "motion" / "cmu17_60fps_int16mm.npz"


# ------------------------------------------------------------------------------------------------------ cameras
def test_golden_normalisation() -> None:
    with np.load(GOLDEN) as golden:
        found = normalize_screen(golden["pixels"], 1000, 1002)
        np.testing.assert_allclose(found, golden["normalized_w1000_h1002"], rtol=1e-6, atol=1e-7)
    with pytest.raises(LiftingDataError, match="0 x 1000"):
        normalize_screen(np.zeros((1, 2)), 0, 1000)


def test_a_ring_of_cameras_looks_at_its_centre() -> None:
    centre = np.array([1.0, 1.0, -2.0])
    for camera in ring_of_cameras(centre, 5, first_angle=0.3):
        np.testing.assert_allclose(camera.rotation.T @ camera.rotation, np.eye(3), atol=1e-12)
        assert np.linalg.det(camera.rotation) == pytest.approx(1)
        np.testing.assert_allclose(camera.project(camera.to_camera(centre)), [500, 500], atol=1e-9)
        above = camera.project(camera.to_camera(centre + np.array([0, 0.5, 0])))
        assert above[1] < 450 and above[0] == pytest.approx(500), "up is up in the picture"


def table(cameras: list[Camera]) -> list[dict[str, Any]]:
    """Cameras as the file holds them."""
    entries = []
    for camera in cameras:
        values, vectors = np.linalg.eig(camera.rotation)
        axis = np.real(vectors[:, np.argmin(np.abs(values - 1))])
        trace = np.trace(camera.rotation)
        skew = np.array([camera.rotation[2, 1] - camera.rotation[1, 2], camera.rotation[0, 2] - camera.rotation[2, 0],
                         camera.rotation[1, 0] - camera.rotation[0, 1]])  # fmt: skip
        angle = np.arctan2(np.linalg.norm(skew), trace - 1)
        axis = skew / np.linalg.norm(skew)
        entries.append(
            {
                "id": camera.name,
                "orientation": [float(np.cos(angle / 2)), *(np.sin(angle / 2) * axis).tolist()],
                "translation": (1000 * camera.position).tolist(),
                "focal_length": camera.focal.tolist(),
                "center": camera.centre.tolist(),
                "radial_distortion": [-0.2, 0.24, -0.002],
                "tangential_distortion": [-0.0009, -0.0014],
                "res_w": camera.size[0],
                "res_h": camera.size[1],
                "azimuth": 70,
            }
        )
    return entries


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A data set of Human3.6M's form, made from generated motion: pickled dictionaries, as VideoPose3D's."""
    folder = tmp_path_factory.mktemp("h36m")
    subjects = ("S1", *TEST_SUBJECTS)
    ring = ring_of_cameras(np.array([0.0, 1.0, 0.0]), 4, distance=7.0, first_angle=0.4)
    listed: dict[str, Any] = {"S2": [{}, {}]}  # VideoPose3D's table has subjects without parameters
    listed |= {subject: table(ring) for subject in subjects}
    (folder / "cameras.json").write_text(json.dumps(listed))
    cameras = read_cameras(folder / "cameras.json")
    poses: dict[str, Any] = {}
    keypoints: dict[str, Any] = {}
    unused = [4, 5, 9, 10, 11, 16, 20, 21, 22, 23, 24, 28, 29, 30, 31]
    used = [joint for joint in range(32) if joint not in unused]
    for number, subject in enumerate(subjects):
        poses[subject], keypoints[subject] = {}, {}
        for sequence, motion in zip(("Walking", "Waiting 1"), generate_motion(2, 90, seed=number), strict=True):
            markers = np.full((90, 32, 3), 99.0, np.float32)
            markers[:, used] = motion.world
            poses[subject][sequence] = markers
            seen = [camera.project(camera.to_camera(motion.world)) for camera in cameras[subject]]
            keypoints[subject][sequence] = [np.pad(one, ((0, 3), (0, 0), (0, 0))).astype(np.float32) for one in seen]
    meta = {
        "layout_name": "h36m",
        "num_joints": 17,
        "keypoints_symmetry": [[4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]],
    }
    np.savez_compressed(folder / "data_3d_h36m.npz", positions_3d=np.array(poses, dtype=object))
    np.savez_compressed(
        folder / "data_2d_h36m_gt.npz",
        positions_2d=np.array(keypoints, dtype=object),
        metadata=np.array(meta, dtype=object),
    )
    return {"poses": folder / "data_3d_h36m.npz", "keypoints": folder / "data_2d_h36m_gt.npz",
            "cameras": folder / "cameras.json"}  # fmt: skip


# --------------------------------------------------------------------------------------------------- Human3.6M
def test_human36m_files(files: dict[str, Path]) -> None:
    clips = Human36M(**files, allow_pickle=True).clips(TEST_SUBJECTS)
    assert len(clips) == 2 * 2 * 4
    assert {(clip.subject, clip.action) for clip in clips} == {
        (s, a) for s in TEST_SUBJECTS for a in ("Walking", "Waiting")
    }
    assert [len({clip.name for clip in clips if clip.recording == each.recording}) for each in clips] == 16 * [4]
    clip = clips[0]
    assert clip.inputs.shape == (90, 17, 2) and clip.targets.shape == (90, 17, 3)
    assert not clip.targets[:, 0].any()
    # what the camera saw is what its axes say: x of the target has the sign of x in the picture, y points down
    away = clip.targets[:, 10] - clip.targets[:, 3]
    seen = clip.inputs[:, 10] - clip.inputs[:, 3]
    assert (away[:, 1] < 0).all() and (seen[:, 1] < 0).all()
    assert np.corrcoef(away[:, 0], seen[:, 0])[0, 1] > 0.8
    world = generate_motion(2, 90, seed=1)[0].world  # S9's first
    np.testing.assert_allclose(
        np.linalg.norm(clip.targets, axis=-1), np.linalg.norm(world - world[:, :1], axis=-1), atol=1e-5
    )
    only = Human36M(**files, allow_pickle=True).clips(["S9"], ["Waiting"], confidence=True)
    assert len(only) == 4 and only[0].inputs.shape == (90, 17, 3) and (only[0].inputs[..., 2] == 1).all()


def test_pickles_need_a_flag_and_can_be_converted(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LiftingDataError, match="pickled objects.*data.allow_pickle=true"):
        Human36M(**files)
    plain = dict(files)
    for key in ("poses", "keypoints"):
        plain[key] = tmp_path / f"{key}.npz"
        with pytest.raises(SystemExit):
            convert_main([str(files[key]), str(plain[key])])
        assert "pickled objects" in capsys.readouterr().err
        assert list(tmp_path.glob(f"*{key}*")) == [], "nothing half-written"
        assert convert_main([str(files[key]), str(plain[key]), "--allow-pickle"]) == 0
    one, two = (Human36M(**which, allow_pickle=flag).clips(["S9"]) for which, flag in ((files, True), (plain, False)))
    for a, b in zip(one, two, strict=True):
        assert a.name == b.name
        assert np.array_equal(a.inputs, b.inputs) and np.array_equal(a.targets, b.targets)


def test_files_that_cannot_be_used(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(LiftingDataError, match="has no 'positions_3d'; it has metadata, positions_2d"):
        read_tree(files["keypoints"], "positions_3d", allow_pickle=True)
    with pytest.raises(LiftingDataError, match=r"none\.npz: there is no such file$"):
        open_npz(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    for allow in (False, True):
        with pytest.raises(LiftingDataError, match=r"text\.npz is truncated or no npz file"):
            open_npz(tmp_path / "text.npz", allow_pickle=allow)
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    with zipfile.ZipFile(tmp_path / "broken.npz", "w") as archive:
        archive.writestr("a.npy", zipfile.ZipFile(tmp_path / "objects.npz").read("a.npy")[:-4] + b"nope")
    with pytest.raises(LiftingDataError, match=r"broken\.npz: cannot be read as an npz file"):
        open_npz(tmp_path / "broken.npz", allow_pickle=True)
    np.savez(tmp_path / "table.npz", positions_3d=np.zeros((5, 17, 3)))
    with pytest.raises(
        LiftingDataError, match=r"positions_3d is an array of shape \(5, 17, 3\).*positions_3d/S1/Walking"
    ):
        read_tree(tmp_path / "table.npz", "positions_3d")
    whole = files["poses"].read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LiftingDataError, match="truncated"):
        open_npz(tmp_path / "cut.npz", allow_pickle=True)
    data = Human36M(**files, allow_pickle=True)
    with pytest.raises(LiftingDataError, match=r"3D file .* has no subject S5; it has S1, S11, S9"):
        data.clips(["S5"])
    with pytest.raises(LiftingDataError, match="no sequence of"):
        data.clips(["S9"], ["Eating"])
    data.poses["S9"]["Walking"] = data.poses["S9"]["Walking"][:, :20]
    with pytest.raises(LiftingDataError, match="20 joints"):
        data.clips(["S9"])
    data.keypoints["S11"]["Walking"] = data.keypoints["S11"]["Walking"]["0"]
    with pytest.raises(LiftingDataError, match=r"S11/Walking: the 2D file .* one a camera"):
        data.clips(["S11"])
    data.poses["S1"] = np.zeros((5, 17, 3))
    with pytest.raises(LiftingDataError, match=r"3D file .* has an array for subject S1, where action -> array"):
        data.clips(["S1"])


def test_frames_in_which_nobody_was_detected(files: dict[str, Path]) -> None:
    """Zeros in pixels: the models would see a person in the corner of the picture."""
    data = Human36M(**files, allow_pickle=True)
    pixels = data.keypoints["S9"]["Walking"]["2"]
    pixels[[3, 4, 5, 30, 31, 32]] = 0
    with pytest.raises(
        LiftingDataError, match=r"S9/Walking, camera 2: .* in 6 of 90 frames, .* \(frame 3, 4, 5, 30, 31, ...\)"
    ):
        data.clips(["S9"])
    pixels[:] = 0  # not blamed on the camera file
    with pytest.raises(LiftingDataError, match=r"S9/Walking, camera 2: .* in 90 of 90 frames, so nobody was detected"):
        data.clips(["S9"])


def resampled(pixels: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Keypoints (T, 17, 2) at other times, in frames; linear between, repeated outside."""
    columns = pixels.reshape(len(pixels), -1).T
    return np.stack([np.interp(at, np.arange(len(pixels)), one) for one in columns], axis=-1).reshape(len(at), 17, 2)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (np.arange(0, 93, 0.5), r"of 2\.\d+ times the frame rate.*has 186 frames, the 3D file .* 90"),
        (np.arange(0, 93, 50 / 60), "of 1.2 times the frame rate"),
        (np.arange(90) * 0.5, "of 2 times the frame rate"),
        (np.arange(90) * 2.0, "of 0.5 times the frame rate"),
        (np.arange(93) - 20.0, "20 frames later"),
        (np.arange(93) + 15.0, "15 frames earlier"),
    ],
    ids=["twice as long", "60 for 50", "cut off", "half", "late", "early"],
)
def test_keypoints_of_other_moments(files: dict[str, Path], at: np.ndarray, message: str) -> None:
    data = Human36M(**files, allow_pickle=True)
    noise = np.random.default_rng(0).normal(0, 4, (len(at), 17, 2))  # as detectors are off
    for camera, pixels in data.keypoints["S9"]["Walking"].items():
        data.keypoints["S9"]["Walking"][camera] = resampled(pixels[:90], at) + noise
    with pytest.raises(LiftingDataError, match=rf"S9/Walking, camera \d: frame by frame .*{message}"):
        data.clips(["S9"], ["Walking"])


def test_keypoints_with_noise_are_of_their_moments(files: dict[str, Path]) -> None:
    data = Human36M(**files, allow_pickle=True)
    rng = np.random.default_rng(0)
    for views in data.keypoints["S9"].values():
        for camera, pixels in views.items():
            longer = np.concatenate([pixels[:90], pixels[80:90]])  # some recordings go on a little
            views[camera] = longer + rng.normal(0, 8, longer.shape)
    assert len(data.clips(["S9"])) == 8


def test_confidences_in_the_2d_file_are_used(files: dict[str, Path]) -> None:
    data = Human36M(**files, allow_pickle=True)
    for views in data.keypoints["S9"].values():
        for camera, pixels in views.items():
            shares = np.random.default_rng(int(camera)).random((len(pixels), 17, 1))
            views[camera] = np.concatenate([pixels, shares], axis=-1)
    clips = data.clips(["S9"], ["Walking"], confidence=True)
    expected = np.random.default_rng(3).random((93, 17, 1))[:90, :, 0]
    np.testing.assert_allclose(clips[3].inputs[..., 2], expected, rtol=1e-6)
    assert data.clips(["S9"], ["Walking"])[0].inputs.shape == (90, 17, 2)
    data.keypoints["S9"]["Walking"]["1"][..., 2] *= 100
    with pytest.raises(LiftingDataError, match=r"S9/Walking, camera 1: confidences from .* are they per cent"):
        data.clips(["S9"], ["Walking"], confidence=True)


def test_single_joints_that_were_not_detected(files: dict[str, Path]) -> None:
    """As ``lift`` refuses them."""
    data = Human36M(**files, allow_pickle=True)
    data.keypoints["S9"]["Walking"]["2"][[3, 4], 13] = 0
    with pytest.raises(LiftingDataError, match=r"camera 2: 2 of 90 frames lack some of the keypoints .* frame 3"):
        data.clips(["S9"])


def test_a_camera_that_does_not_see_the_person(files: dict[str, Path], tmp_path: Path) -> None:
    cameras = json.loads(files["cameras"].read_text())
    first, third = cameras["S9"][0], cameras["S9"][2]
    first["orientation"] = third["orientation"]  # that of the camera opposite: it looks away
    (tmp_path / "cameras.json").write_text(json.dumps(cameras))
    data = Human36M(files["poses"], files["keypoints"], tmp_path / "cameras.json", allow_pickle=True)
    with pytest.raises(LiftingDataError, match=r"in 90 of 90 frames the person is not in front of this camera"):
        data.clips(["S9"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("S9"), "camera file .* has no subject S9"),
        (lambda t: t["S9"].pop(1), "does not match.* a view is missing in the 2D file's list"),
        (lambda t: t["S9"].reverse(), "does not match: its cameras are in another order"),
        (lambda t: [c.update(translation=[v / 1000 for v in c["translation"]]) for c in t["S9"]], "does not match"),
        (lambda t: t["S9"][1].update(orientation=[1, 1, 0, 0]), "camera 1: orientation has length 1.41"),
        (lambda t: t["S9"][1].pop("focal_length"), "camera 1: focal_length=None, 2 numbers"),
        (lambda t: t["S9"][1].update(center=["a", 2]), "center=.*2 numbers"),
        (lambda t: t["S9"][1].update(res_w=None), "res_w=None"),
        (lambda t: [t.update({s: [{}]}) for s in list(t)], "no camera with an orientation"),
        (lambda t: t.update(S9=3), "subject -> list of cameras"),
    ],
    ids=["subject", "shifted", "order", "unit", "quaternion", "missing", "text", "size", "empty", "form"],
)
def test_camera_files_that_do_not_match(files: dict[str, Path], tmp_path: Path, change: Any, message: str) -> None:
    cameras = json.loads(files["cameras"].read_text())
    change(cameras)
    (tmp_path / "cameras.json").write_text(json.dumps(cameras))
    with pytest.raises(LiftingDataError, match=message):
        Human36M(files["poses"], files["keypoints"], tmp_path / "cameras.json", allow_pickle=True).clips(["S9"])


def told(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    return record.getMessage()


def test_a_missing_view_does_not_block_the_set(
    files: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The others keep their cameras: nothing moves up."""
    whole = {clip.name: clip for clip in Human36M(**files, allow_pickle=True).clips(["S9"])}
    data = Human36M(**files, allow_pickle=True)
    del data.keypoints["S9"]["Walking"]["1"]
    data.keypoints["S9"]["Waiting 1"]["3"] = np.zeros((0, 17, 2))
    clips = data.clips(["S9"])
    assert {clip.name for clip in clips} == whole.keys() - {"S9/Walking, camera 1", "S9/Waiting 1, camera 3"}
    assert all(np.array_equal(clip.inputs, whole[clip.name].inputs) for clip in clips)
    message = told(caplog)
    assert "2 views are missing" in message and "S9/Walking, view 1: no keypoints" in message
    data.keypoints["S9"]["Walking"].clear()
    with pytest.raises(LiftingDataError, match=r"S9/Walking: no view has keypoints .*data\.leave_out\.sequences"):
        data.clips(["S9"])
    assert len(data.clips(["S9"], leave_out=["S9/Walking"])) == 3


@pytest.mark.parametrize("gone", ["null", "the last"])
def test_a_missing_camera_does_not_block_the_set(
    files: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, gone: str
) -> None:
    cameras = json.loads(files["cameras"].read_text())
    if gone == "null":
        cameras["S9"][1] = None
    else:
        cameras["S9"].pop()
    (tmp_path / "cameras.json").write_text(json.dumps(cameras))
    clips = Human36M(files["poses"], files["keypoints"], tmp_path / "cameras.json", True).clips(["S9"], ["Walking"])
    assert [clip.name[-1] for clip in clips] == (["0", "2", "3"] if gone == "null" else ["0", "1", "2"])
    assert f"S9/Walking, view {1 if gone == 'null' else 3}: no camera in " in told(caplog)
    assert len(read_cameras(tmp_path / "cameras.json")["S9"]) == 3


def test_sequences_known_to_be_displaced_are_told_and_can_be_left_out(
    files: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    assert DAMAGED == ("S9/Greeting", "S9/SittingDown 1", "S9/Waiting 1")
    data = Human36M(**files, allow_pickle=True)
    for subject in TEST_SUBJECTS:
        data.poses[subject]["Waiting 1"] = data.poses[subject]["Waiting 1"] + np.float32(0.6)
    assert len(data.clips(["S9"])) == 8, "published figures count them"
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 4 and all(
        "S9/Waiting 1" in one and "leave_out.sequences=[damaged]" in one for one in messages
    )
    caplog.clear()
    assert {clip.action for clip in data.clips(["S9"], leave_out=DAMAGED)} == {"Walking"}
    assert not caplog.records
    with pytest.raises(LiftingDataError, match="S11/Waiting 1, camera 0: .*pixels"):
        data.clips(["S11"])
    with pytest.raises(
        LiftingDataError, match=r"no sequence of \['S9'\] in the actions None without S9/Waiting 1, S9/Walk"
    ):
        data.clips(["S9"], leave_out=["S9/Walking", "S9/Waiting 1"])


def test_camera_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(LiftingDataError, match=r"none\.json: there is no such file$"):
        read_cameras(tmp_path / "none.json")
    (tmp_path / "no.json").write_text("{")
    with pytest.raises(LiftingDataError, match="cannot be read as JSON"):
        read_cameras(tmp_path / "no.json")


# --------------------------------------------------------------------------------------------------------- CMU
def test_sequences_are_cut_at_tears(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torn = np.zeros((100, 17, 3), np.int16)
    torn[60:, 4] = 201  # 348 mm away
    torn[90:, 4, 0] = 500
    short = np.zeros((10, 17, 3), np.int16)
    np.savez(tmp_path / "cmu.npz", **{"train/run/torn": torn, "train/run/short": short, "test/run/a": short})
    assert whole_pieces(torn) == [(0, 60), (60, 90), (90, 100)]
    with caplog.at_level(logging.INFO):
        found = {motion.name: len(motion.world) for motion in load_cmu(tmp_path / "cmu.npz", "train", shortest=27)}
    assert found == {"short": 10, "torn.0": 60, "torn.1": 30}
    motions = generate_motion(1, 9)
    motions += [replace(motions[0], name=f"torn.{number}", sequence="torn") for number in range(2)]
    assert sorted(Counter(clip.recording for clip in film(motions, 3)).values()) == [3, 6], "pieces and views of one"
    assert "10 frames between tears" in caplog.text
    with pytest.raises(LiftingDataError, match=r"no array val/<action>/<name>; it has test/run/a"):
        load_cmu(tmp_path / "cmu.npz", "val")
    np.savez(tmp_path / "wrong.npz", **{"train/run/a": torn[:, :16]})
    with pytest.raises(LiftingDataError, match=r"shape \(100, 16, 3\)"):
        load_cmu(tmp_path / "wrong.npz", "train")


@pytest.mark.skipif(not CMU.is_file(), reason="the CMU pack is not here")
def test_the_cmu_pack() -> None:
    train, test = (load_cmu(CMU, split, shortest=81) for split in ("train", "test"))
    steps = [1000 * np.linalg.norm(np.diff(motion.world, axis=0), axis=-1).max() for motion in train + test]
    assert max(steps) <= 200.1
    assert sum(len(motion.world) for motion in test) > 0.98 * 7042
    assert 0.9 * 26869 < sum(len(motion.world) for motion in train) < 26869
    clips = film(test[:3], cameras=2, noise=0.0)
    assert len(clips) == 6
    assert all(np.abs(clip.inputs).max() < 1 for clip in clips), "everyone is in the picture"


# ------------------------------------------------------------------------------------------------------- clips
def test_film_depends_on_seed_and_name_alone() -> None:
    motions = generate_motion(3, 30)
    one, two = film(motions, 2, seed=1), film(motions[2:], 2, seed=1)
    assert np.array_equal(one[4].inputs, two[0].inputs)
    assert not np.array_equal(one[4].inputs, film(motions[2:], 2, seed=2)[0].inputs)
    clean, noisy = film(motions, 2, noise=0.0, seed=1), one
    off = np.std(np.concatenate([a.inputs - b.inputs for a, b in zip(clean, noisy, strict=True)]))
    assert off == pytest.approx(5 * 2 / 1000, rel=0.05), "5 pixels of 1000"
    assert np.array_equal(clean[0].targets, noisy[0].targets)
    for clip in clean:
        assert np.abs(clip.inputs).max() < 1
    with pytest.raises(LiftingDataError, match="cameras=0"):
        film(motions, 0)


def test_keypoints_no_model_should_see() -> None:
    good = np.random.default_rng(0).normal(size=(5, 17, 2))
    check_keypoints(good, "here")
    bad = good.copy()
    bad[3, 2, 1] = np.nan
    for keypoints, message in (
        (bad, "here: keypoints of 1 of 5 frames are NaN or infinite, the first at frame 3"),
        (0 * good, "every 2D keypoint is 0"),
        (np.dstack([0 * good, np.ones((5, 17, 1))]), "every 2D keypoint is 0"),
        (np.full((5, 17, 2), -1.0), "all joints lie at one point in 5 of 5 frames"),
        (np.concatenate([good, good[:, :1].repeat(17, axis=1)]), r"one point in 5 of 10 .*frame 5, 6, 7, 8, 9\)"),
        (good[:, :16], "16 joints a frame, the models know 17"),
        (good[:0], "empty clip"),
        (good[0], r"shape \(17, 2\)"),
    ):
        with pytest.raises(LiftingDataError, match=message):
            check_keypoints(keypoints, "here")


def test_coco_to_h36m() -> None:
    coco = np.zeros((1, 17, 3), np.float32)
    coco[0, :, 0], coco[0, :, 1], coco[0, :, 2] = np.arange(17), 100 + np.arange(17), 0.9
    coco[0, 12, 2] = 0.3  # the right hip
    joints = coco_to_h36m(coco, "midpoints")
    x = [11.5, 12, 14, 16, 11, 13, 15, 8.5, 5.5, 0, 1.5, 5, 7, 9, 6, 8, 10]
    np.testing.assert_allclose(joints[0, :, 0], x)
    np.testing.assert_allclose(joints[0, :, 1], 100 + np.array(x))
    low = np.flatnonzero(joints[0, :, 2] < 0.5)
    assert low.tolist() == [0, 1, 7], "what the right hip goes into"
    # left and right are exchanged in both skeletons alike
    pairs = np.array([0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15])
    mirrored = coco[:, pairs] * [-1, 1, 1]
    np.testing.assert_allclose(coco_to_h36m(mirrored.astype(np.float32), "midpoints"), mirror(joints), rtol=1e-6)
    with pytest.raises(LiftingDataError, match=r"\(1, 16, 3\)"):
        coco_to_h36m(coco[:, :16])


def test_from_markers() -> None:
    markers = np.arange(32, dtype=np.float32)[None, :, None].repeat(3, axis=2)
    kept = [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]
    assert from_markers(markers)[0, :, 0].tolist() == kept
    assert from_markers(markers[:, :17]).shape == (1, 17, 3)
