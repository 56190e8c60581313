"""Calibrations from files: as OpenCV writes them, as tools around it do, and what is wrong with others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cycledistill.integrations.human36m.data.calibration.file import read_calibration, rodrigues
from cycledistill.integrations.human36m.data.calibration.storage import read_storage
from cycledistill.integrations.human36m.errors import LiftingDataError

K = np.array([[900.0, 0, 630], [0, 880, 370], [0, 0, 1]])
DIST = np.array([[-0.28, 0.09, 0.002, -0.003, 1e-5]])
RVEC = np.array([[0.2], [-0.4], [0.1]])
R = cv2.Rodrigues(RVEC)[0]
T = np.array([[300.0], [-100.0], [4000.0]])
PLAIN = {"K": K.tolist(), "dist": DIST.ravel().tolist(), "R": R.tolist(), "t": [0.3, -0.1, 4.0]}
ONE = PLAIN | {"width": 1280, "height": 720}


def store(path: Path, **values: Any) -> Path:
    """Written by OpenCV itself."""
    file = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    for name, value in values.items():
        file.write(name, value)
    file.release()
    return path


def write(path: Path, data: Any) -> Path:
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def check(camera: Any) -> None:
    """The camera sees what OpenCV says for the calibration, t in millimetres."""
    points = np.random.default_rng(0).uniform(-1000, 1000, (20, 3))
    expected = cv2.projectPoints(points, RVEC, T, K, DIST)[0][:, 0]
    assert np.abs(camera.project(camera.to_camera(points / 1000)) - expected).max() < 1e-6
    assert camera.size == (1280, 720)


@pytest.mark.parametrize("suffix", ["yml", "yaml", "xml", "json"])
def test_what_opencv_writes_is_read_as_it_reads_it(suffix: str, tmp_path: Path) -> None:
    path = store(
        tmp_path / f"front.{suffix}", camera_matrix=K, distortion_coefficients=DIST, R=R, T=T.ravel(), image_width=1280,
        image_height=720, unit="mm", calibration_time="Tue 3 Nov", note="", reprojection_error=0.31,
    )  # fmt: skip
    data, theirs = read_storage(path), cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)
    for name in ("camera_matrix", "distortion_coefficients", "R", "T"):
        assert np.array_equal(np.ravel(data[name]), theirs.getNode(name).mat().ravel())
        assert name == "T" or data[name].shape == theirs.getNode(name).mat().shape
    assert data["calibration_time"] == "Tue 3 Nov"
    cameras = read_calibration(path)
    assert list(cameras) == ["front"]
    check(cameras["front"])


def test_parts_in_two_files_with_the_cameras_names_behind_the_keys(tmp_path: Path) -> None:
    inner = store(tmp_path / "intri.yml", K_01=K, dist_01=DIST, K_a_2=K, dist_a_2=DIST)
    outer = store(tmp_path / "extri.yml", R_01=RVEC, Rot_01=R, T_01=T, R_a_2=RVEC, T_a_2=T)
    for paths in ([inner, outer], tmp_path):
        cameras = read_calibration(paths, unit="mm", size=(1280, 720))
        assert sorted(cameras) == ["01", "a_2"]
        check(cameras["01"])
        check(cameras["a_2"])


def test_the_two_cameras_of_opencv_s_stereo_example(tmp_path: Path) -> None:
    inner = store(tmp_path / "intrinsics.yml", M1=K, D1=DIST, M2=K, D2=DIST)
    outer = store(tmp_path / "extrinsics.yml", R=R, T=T, R1=np.eye(3), P1=np.eye(3, 4), Q=np.eye(4))
    cameras = read_calibration([inner, outer], unit="mm", size=(1280, 720))
    assert cameras["1"].position.tolist() == [0, 0, 0]
    check(cameras["2"])


def test_a_folder_of_openpose_s_files(tmp_path: Path) -> None:
    for name in ("17", "18"):
        store(tmp_path / f"{name}.xml", CameraMatrix=np.hstack([R, T]), Intrinsics=K, Distortion=DIST.T)
    cameras = read_calibration(tmp_path, unit="mm", size=(1280, 720))
    assert sorted(cameras) == ["17", "18"]
    check(cameras["17"])


@pytest.mark.parametrize(
    "data",
    [
        {"front": ONE},
        {"cameras": [ONE | {"name": "front"}]},
        {"cameras": {"front": ONE}, "unit": "m"},
        [ONE | {"name": "front"}],
        {"unit": "mm", "cameras": [PLAIN | {"name": "front", "t": T.tolist(), "resolution": [1280, 720]}]},
        {"front": ONE | {"R": RVEC.ravel().tolist()}},
    ],
    ids=["by name", "list", "object", "bare list", "Panoptic's", "Rodrigues"],
)
def test_forms_in_plain_json_and_yaml(data: Any, tmp_path: Path) -> None:
    for suffix in ("json", "yaml"):  # JSON is YAML
        check(read_calibration(write(tmp_path / f"a.{suffix}", data))["front"])


def test_ros_s_file_of_a_fisheye(tmp_path: Path) -> None:
    text = (
        "image_width: 1280\nimage_height: 720\ncamera_name: left\ndistortion_model: equidistant\n"
        "camera_matrix:\n  rows: 3\n  cols: 3\n  data: [900, 0, 630, 0, 880, 370, 0, 0, 1]\n"
        "distortion_coefficients:\n  rows: 1\n  cols: 4\n  data: [1e-2, 2.0e-3, 0, 0]\n"
        "R: [[1, 0, 0], [0, 1, 0], [0, 0, 1]]\nt: [0, 0, 0]\n"
    )
    lens = read_calibration(write(tmp_path / "left.yaml", text))["left"].lens
    assert lens is not None
    assert (lens.model, lens.coefficients) == ("fisheye", (0.01, 0.002, 0, 0))


def test_rotation_vectors_are_opencv_s() -> None:
    for vector in (RVEC.ravel(), np.zeros(3), np.array([np.pi, 0, 0])):
        assert np.abs(rodrigues(vector) - cv2.Rodrigues(vector)[0]).max() < 1e-12


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"front": {**ONE, "R": None}}, "camera front: there is no R: where the cameras are in one world"),
        ({"front": {**ONE, "K": None}}, "camera front: there is no K|no camera is found"),
        ({"front": PLAIN}, "the size of its pictures is not known"),
        ({"front": {**ONE, "K": (K * 2).tolist()}}, "K=.* is expected, pixels"),
        ({"front": {**ONE, "R": (2 * R).tolist()}}, "R: a rotation matrix is expected; this is a rotation times 2"),
        ({"front": {**ONE, "R": [[1], [2, 3]]}}, "camera front: R: .*finite numbers"),
        ({"front": {**ONE, "t": [0, 1]}}, "camera front: t: shape"),
        ({"front": {**ONE, "dist": [1, 2, 3]}}, "front: lens: 3 coefficients"),
        ({"front": {**ONE, "width": 640, "height": 360}}, "K has its centre .* pictures of another size"),
        ({"front": {**ONE, "width": 12.5}}, "whole pixels"),
        ({"front": {**ONE, "unit": "inch"}}, "unit='inch': one of m, cm, mm"),
        ({"front": {**ONE, "model": "omni"}}, "model='omni'"),
        ({"boxes": [1, 2]}, "no camera is found in it: K"),
        ([], "no camera is found in it"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_calibration(data: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(LiftingDataError, match=said):
        read_calibration(write(tmp_path / "a.json", data))


def test_a_unit_that_the_file_gives_otherwise_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", {"front": ONE | {"unit": "m"}})
    with pytest.raises(LiftingDataError, match="the file says unit='m', and 'mm' is given"):
        read_calibration(path, unit="mm")
    with pytest.raises(LiftingDataError, match="a second time"):
        read_calibration([path, write(tmp_path / "b.json", {"front": ONE})])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yml", "%YAML:1.0\n---\nK: !!python/object/apply:os.system ['true']\n", "not plain YAML"),
        (
            "a.yml",
            "%YAML:1.0\n---\nK: !!opencv-matrix\n   rows: 3\n   cols: 3\n   data: [ 1., 2. ]\n",
            "2 numbers for 3",
        ),
        ("a.yml", "K: [1, 2", "not plain YAML"),
        ("a.xml", "<opencv_storage><K>1", "OpenCV's XML"),
        ("a.xml", '<!DOCTYPE x [<!ENTITY a "b">]><opencv_storage><K>&a;</K></opencv_storage>', "DOCTYPE"),
        ("a.xml", "<a>" * 40 + "</a>" * 40, "inside each other"),
        ("a.json", "[" * 40 + "]" * 40, "inside each other"),
        ("a.json", "{", "JSON"),
        ("a.toml", "", "ends in .yml"),
        ("a.yml", None, "a.yml"),
    ],
    ids=["code", "short matrix", "cut", "cut XML", "entities", "deep XML", "deep", "cut JSON", "suffix", "no file"],
)
def test_files_that_are_damaged_or_strange(name: str, text: str | None, said: str, tmp_path: Path) -> None:
    if text is not None:
        write(tmp_path / name, text)
    with pytest.raises(LiftingDataError, match=said):
        read_calibration(tmp_path / name)
