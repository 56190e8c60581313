"""Recordings and Human3.6M's pictures as users have them: read right, without what is missing, or refused in words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.multiview.config import MultiViewConfig
from cycledistill.integrations.human36m.multiview.crops import undo_crop
from cycledistill.integrations.multiview.data.folders import read_folder
from cycledistill.integrations.multiview.data.human36m import read_human36m
from cycledistill.integrations.multiview.data.moments import MultiViewSet
from cycledistill.integrations.multiview.data.samples import MultiViewSamples
from cycledistill.recipes.errors import DataError
from tests.multiview.scenes import opencv, some, write_recording


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recording(tmp_path_factory.mktemp("views") / "a", some())


@pytest.fixture
def folder(recording: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recording, tmp_path / "a"))


def assert_same(found: MultiViewSet, made: MultiViewSet, to_pixels: float = 1e-3) -> None:
    """The joints in the pictures and in the world, and the cameras."""
    for one, other in zip(found.moments, made.moments, strict=True):
        assert one.pose is not None and other.pose is not None
        assert np.abs(one.pose - other.pose).max() < 1e-6
        for view, own in zip(one.views.values(), other.views.values(), strict=True):
            assert np.abs(view.joints - own.joints).max() < to_pixels
            assert np.abs(view.camera.position - own.camera.position).max() < 1e-6


def test_a_recording_is_what_was_written(recording: Path) -> None:
    found = read_folder(recording, unit="mm")
    assert_same(found, some())
    view = found.moments[1].views["cam2"]
    assert view.picture == "cam2/take2_0008.png"
    assert np.array_equal(found.read(view), some().read(some().moments[1].views["2"]))
    assert_same(read_folder(recording.parent, unit="mm"), some())  # a folder of recordings
    assert [list(each.views) for each in read_folder(recording, unit="mm", cameras=["cam2", "cam0"]).moments] == [
        ["cam0", "cam2"]
    ] * 2
    assert [each.name for each in read_folder(recording, unit="mm", every=4).moments] == ["a, picture 8"]


def test_views_are_cut_with_their_joints_and_rays(recording: Path) -> None:
    """A view's joint, put back into the picture, is the projected one; and the ray of its patch is the nearest."""
    moments, config = read_folder(recording, unit="mm"), MultiViewConfig(image_size=(64, 64))
    samples = MultiViewSamples(moments, config)
    ((views, _),) = samples.by_views([0, 1])
    for place, (name, view) in enumerate(moments.moments[1].views.items()):
        matrix = samples.matrix(view)
        back = undo_crop(views.joints[place, 1].numpy().astype(np.float64), matrix)
        assert np.abs(back - view.joints[:, :2]).max() < 1e-3, name
        pelvis = view.camera.to_camera(moments.moments[1].pose[:1])[0]  # type: ignore[index]
        row, column = ((views.joints[place, 1, 0].numpy()[::-1] + 0.5) // 16).astype(int)
        rays = views.rays[place, 1].numpy() - view.camera.position
        along = (rays @ view.camera.rotation @ pelvis) / np.linalg.norm(rays, axis=1)
        assert along.argmax() == row * 4 + column  # none of the others is nearer to it
        assert np.allclose(views.centers[place, 1], view.camera.position, atol=1e-5)


def coco(folder: Path, name: str, **other: Any) -> dict[str, Any]:
    """COCO annotations of a camera's pictures, shifted by two pixels, the last joint of each not labelled."""
    made: dict[str, Any] = {"images": [], "annotations": []}
    for number, moment in enumerate(read_folder(folder, unit="mm").moments):
        joints = moment.views[name].joints.copy()
        joints[:, :2] += 2
        joints[:, 2] = np.where(np.arange(17) < 16, 2, 0)
        made["images"].append({"id": 50 + number, "file_name": f"take2_{7 + number:04d}.png"})
        entry = {"image_id": 50 + number, "keypoints": joints.reshape(-1).tolist(), "bbox": [20, 10, 60, 90]}
        made["annotations"].append({**entry, **other})
    return made


def test_labels_in_a_picture_count_before_the_projected_pose(folder: Path) -> None:
    (folder / "cam1.json").write_text(json.dumps(coco(folder, "cam1")))
    found, made = read_folder(folder, unit="mm"), some()
    view, own = found.moments[0].views["cam1"], made.moments[0].views["1"]
    assert np.abs(view.joints[:16, :2] - own.joints[:16, :2] - 2).max() < 1e-3
    assert view.joints[:, 2].tolist() == [1] * 16 + [0] and view.box == (20, 10, 60, 90)
    (folder / "poses.npz").unlink()
    with pytest.raises(LiftingDataError, match=r"none of 2 moments has 2 views with a labelled person \(at most 1\)"):
        read_folder(folder, unit="mm")
    shutil.copy(folder / "cam1.json", folder / "cam0.json")
    assert [each.pose for each in read_folder(folder, unit="mm").moments] == [None, None]


def _poses(folder: Path, **arrays: Any) -> None:
    np.savez(folder / "poses.npz", **arrays)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "there is no such folder"),
    "nothing": (lambda f: (f / "poses.npz").unlink(), "no recording: a folder with poses.npz"),
    "no calibration": (lambda f: (f / "calibration.json").unlink(), "no calibration: calibration.yml"),
    "a camera less": (
        lambda f: (f / "cam1").rename(f / "left"),
        "the calibration has no camera left; it has cam0, cam1, cam2: folders of pictures",
    ),
    "no pictures": (
        lambda f: [shutil.rmtree(f / f"cam{n}") for n in range(3)] and (f / "cam0.mp4").touch(),
        "no folder of pictures called as a camera is in it; of a video: mkdir cam0 && ffmpeg -i cam0.mp4",
    ),
    "one view": (lambda f: [shutil.rmtree(f / f"cam{n}") for n in (1, 2)], r"has 2 views .* \(at most 1\)"),
    "numbers": (lambda f: (f / "cam1" / "x.png").touch(), "alike but for one, .* are take2_0007"),
    "twice": (lambda f: (f / "cam1" / "take2_7.png").touch(), "two pictures have one number"),
    "other frames": (lambda f: _poses(f, poses=np.zeros((2, 17, 3)), frames=[50, 51]), "at most 0"),
    "lengths": (lambda f: _poses(f, poses=np.zeros((3, 17, 3))), "3 poses for 2 pictures"),
    "shape": (lambda f: _poses(f, poses=np.zeros((2, 17, 2))), r"poses of shape \(2, 17, 2\)"),
    "name": (lambda f: _poses(f, pose=np.zeros((2, 17, 3))), r"has pose: poses \(T, J, 3\) is expected"),
    "3D and 2D of other joints": (
        lambda f: (f / "cam1.json").write_text(json.dumps(coco(f, "cam1", keypoints=[50, 60, 2] * 5))),
        "persons of 5, 17 joints; one number is expected",
    ),
    "two persons": (
        lambda f: (f / "cam1.json").write_text(
            json.dumps({k: v * (1 + (k == "annotations")) for k, v in coco(f, "cam1").items()})
        ),
        "take2_0007.png has a second person: one is expected",
    ),
    "labels of others": (
        lambda f: (f / "cam1.json").write_text(json.dumps(coco(f, "cam1")).replace("take2_00", "take2_01")),
        "its labels are of pictures 107 to 108, and those of camera cam1 are 7 to 8",
    ),
    "no annotations": (lambda f: (f / "cam1.json").write_text('{"images": [{}], "annotations": []}'), "not COCO ann"),
}  # fmt: skip


def test_a_unit_that_is_not_said_is_noticed(folder: Path) -> None:
    """Calibration and labels, both in millimetres, agree with each other as metres: just a thousand times as large."""
    with pytest.raises(LiftingDataError, match=r"the person is 1[.\d]+e\+03 m large: .* It looks like mm"):
        read_folder(folder)
    assert len(read_folder(folder, checked=False)) == 2


@pytest.mark.parametrize(("breaks", "said"), BROKEN.values(), ids=BROKEN)
def test_recordings_that_are_refused(breaks: Callable[[Path], object], said: str, folder: Path) -> None:
    breaks(folder)
    with pytest.raises(LiftingDataError, match=said):
        read_folder(folder, unit="mm")


def test_pictures_are_checked_when_they_are_read(folder: Path) -> None:
    cv2.imwrite(str(folder / "cam1" / "take2_0007.png"), np.zeros((64, 128, 3), np.uint8))
    (folder / "cam1" / "take2_0008.png").write_bytes(b"no picture")
    samples = MultiViewSamples(read_folder(folder, unit="mm"), MultiViewConfig(image_size=(64, 64)))
    with pytest.raises(LiftingDataError, match="take2_0007.png is 128 x 64 pixels, and camera cam1 was calibrated on"):
        samples[0]
    with pytest.raises(DataError, match="take2_0008.png: not a picture, or a broken one"):
        samples[0, 1]


def write_human36m(root: Path, placed: bool) -> Path:
    """Two frames of generated moments as the preprocessing in use writes them; camera 3 lacks the second."""
    (root / "annotations").mkdir(parents=True)
    data: dict[str, list[Any]] = {"images": [], "annotations": []}
    cameras, joints = {}, {"2": {"1": {}}}  # type: ignore[var-annotated]
    for frame, moment in enumerate(some().moments):
        assert moment.pose is not None
        joints["2"]["1"][str(5 * frame)] = (1000 * moment.pose).tolist()
        for name, view in moment.views.items():
            number = int(name) + 1
            made = opencv(view.camera)
            t = (1000 * view.camera.position).tolist() if placed else made["t"]
            focal, centre = view.camera.focal.tolist(), view.camera.centre.tolist()
            cameras[str(number)] = {"R": made["R"], "t": t, "f": focal, "c": centre}
            if (frame, number) == (1, 3):
                continue
            stem = f"s_01_act_02_subact_01_ca_{number:02d}"
            file = root / "images" / stem / f"{stem}_{5 * frame + 1:06d}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), some().read(view)[..., ::-1])
            facts = {"subject": 1, "action_idx": 2, "subaction_idx": 1, "cam_idx": number, "frame_idx": 5 * frame}
            told = {"id": len(data["images"]), "file_name": f"{stem}/{file.name}", "width": 128, "height": 128}
            data["images"].append({**told, **facts})
            data["annotations"].append({"id": told["id"], "image_id": told["id"], "bbox": list(view.box)})
    for kind, content in (("data", data), ("camera", cameras), ("joint_3d", joints)):
        (root / "annotations" / f"Human36M_subject1_{kind}.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("placed", [False, True], ids=["OpenCV's t", "t is the position"])
def test_human36m_of_both_conventions(placed: bool, tmp_path: Path) -> None:
    found = read_human36m(write_human36m(tmp_path, placed), ["S1"])
    assert [list(each.views) for each in found.moments] == [["1", "2", "3"], ["1", "2"]]
    made = some()
    pairs = zip(found.moments[0].views.values(), made.moments[0].views.values(), strict=True)
    assert max(np.abs(one.joints - own.joints).max() for one, own in pairs) < 1e-3
    assert found.read(found.moments[1].views["2"]).shape == (128, 128, 3)
    assert len(read_human36m(tmp_path, ["S1"], every=10)) == 1
    with pytest.raises(LiftingDataError, match=r"Human36M_subject9_data\.json"):
        read_human36m(tmp_path, ["S9"])


def test_human36m_of_mixed_files(tmp_path: Path) -> None:
    root = write_human36m(tmp_path, placed=False)
    poses = root / "annotations" / "Human36M_subject1_joint_3d.json"
    joints = json.loads(poses.read_text())
    moved = {frame: (np.array(pose) + np.array([2000, 0, 0])).tolist() for frame, pose in joints["2"]["1"].items()}
    poses.write_text(json.dumps({"2": {"1": moved}}))
    with pytest.raises(LiftingDataError, match="of the persons are in their boxes: are the files of one subject"):
        read_human36m(root, ["S1"])
    (root / "annotations" / "Human36M_subject1_camera.json").write_text("[]")
    with pytest.raises(LiftingDataError, match="not of the form expected"):
        read_human36m(root, ["S1"])
