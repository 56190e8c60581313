"""Human3.6M as the field's files hold it: what is read, and what is refused or left out."""

from __future__ import annotations

import json
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cycledistill.integrations.human36m.data.cameras import read_cameras
from cycledistill.integrations.human36m.data.h36m import TEST_SUBJECTS, Human36M
from cycledistill.integrations.human36m.data.motion import generate_motion
from cycledistill.integrations.human36m.data.npz import main as convert_main
from cycledistill.integrations.human36m.data.npz import open_npz, read_tree
from cycledistill.integrations.human36m.errors import LiftingDataError


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


def test_camera_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(LiftingDataError, match=r"none\.json: there is no such file$"):
        read_cameras(tmp_path / "none.json")
    (tmp_path / "no.json").write_text("{")
    with pytest.raises(LiftingDataError, match="cannot be read as JSON"):
        read_cameras(tmp_path / "no.json")
