"""The files of many tools hold one person, and are read as that; what cannot be told is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cycledistill.integrations.human36m.data.keypoints.files import read_keypoints, read_persons
from cycledistill.integrations.human36m.data.skeleton import coco_to_h36m, halpe_to_h36m
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.lift import prepare
from tests.human36m.data.tool_files import BODY_25, COCO, SIZE, TOOLS, as_set, dump, yolo_labels
from tests.human36m.people import coco_person, h36m_person

PERSON = coco_person(8, SIZE)


@pytest.mark.parametrize("tool", TOOLS)
def test_every_tools_file_is_the_same_person(tool: str, tmp_path: Path) -> None:
    file = TOOLS[tool](PERSON, tmp_path)
    (found,) = read_persons(file)
    channels = found.pixels.shape[-1]
    scale = np.array([*SIZE, 1] if found.shares else [1, 1, 1])
    np.testing.assert_allclose((found.pixels * scale[:channels])[..., :2], PERSON[..., :2], rtol=1e-4)
    if channels == 3:
        confidence = 1 if tool == "coco_annotations" else PERSON[..., 2]
        np.testing.assert_allclose(found.pixels[..., 2], np.broadcast_to(confidence, (8, 17)), rtol=1e-5)
    if tool in ("coco_annotations", "videopose3d", "npz", "predicted"):
        assert (found.width, found.height) == SIZE
    np.savez(tmp_path / "same.npz", keypoints=PERSON)
    np.testing.assert_allclose(prepare(file, None, *SIZE), prepare(tmp_path / "same.npz", None, *SIZE), atol=1e-4)


@pytest.mark.parametrize("tool", ["mmpose_video", "mmpose_pictures", "openpose", "yolo_json", "yolo_labels"])
def test_a_picture_without_the_person_is_a_gap(tool: str, tmp_path: Path) -> None:
    file = TOOLS[tool](PERSON, tmp_path)
    if tool == "yolo_labels":
        (file / "clip_4.txt").unlink()  # Ultralytics writes none
    elif file.is_dir():
        third = sorted(file.iterdir())[3]
        third.write_text(json.dumps({"version": 1.3, "people": []} if tool == "openpose" else []))
    else:
        frames = json.loads(file.read_text())
        frames[3] = [] if tool == "yolo_json" else {"frame_id": 3, "instances": []}
        dump(file, frames)
    found = read_keypoints(file)
    assert len(found.pixels) == 8 and not found.pixels[3].any()
    seen = found.pixels[..., :2] * (SIZE if found.shares else 1)
    np.testing.assert_allclose(np.delete(seen, 3, 0), np.delete(PERSON[..., :2], 3, 0), rtol=1e-4)


def test_halpe_has_joints_of_its_own_and_each_models_authors_take_theirs(tmp_path: Path) -> None:
    halpe = np.concatenate([PERSON, np.full((8, 9, 3), 0.9, np.float32)], axis=1)
    halpe[:, 17, :2] = PERSON[:, 1:3, :2].mean(1) - [0, 9]  # top of the head
    halpe[:, 18, :2] = PERSON[:, 5:7, :2].mean(1) - [0, 4]
    halpe[:, 19, :2] = PERSON[:, 11:13, :2].mean(1) - [0, -2]
    for count in (26, 136):
        whole = np.concatenate([halpe, np.ones((8, count - 26, 3), np.float32)], axis=1)
        entries = [{"image_id": f"{n}.jpg", "keypoints": f.ravel().tolist(), "idx": 1} for n, f in enumerate(whole)]
        file = dump(tmp_path / f"{count}.json", entries)
        centred = np.array([1, SIZE[1] / SIZE[0]])

        def pixels(found: Any, centred: Any = centred) -> Any:
            return (found + centred) * SIZE[0] / 2

        midpoints = pixels(prepare(file, None, *SIZE, coco="midpoints"))
        for joint, keypoint in ((10, 17), (8, 18), (0, 19), (9, 0), (3, 16), (13, 9)):
            np.testing.assert_allclose(midpoints[:, joint], halpe[:, keypoint, :2], atol=1e-3)
        np.testing.assert_allclose(midpoints[:, 7], halpe[:, 18:20, :2].mean(1), atol=1e-3)
        assert halpe_to_h36m(halpe).shape == (8, 17, 3)
        for layout in (None, "coco"):
            others = pixels(prepare(file, layout, *SIZE, coco="extrapolated"))
            np.testing.assert_allclose(others, coco_to_h36m(PERSON[..., :2]), atol=1e-3)
    names = {str(n): name for n, name in enumerate([*COCO, "head", "neck", "hip", *"abcdef"])}
    instances = [{"keypoints": f[:, :2].tolist(), "keypoint_scores": f[:, 2].tolist(), "track_id": 5} for f in halpe]
    frames = [{"frame_id": n, "instances": [each]} for n, each in enumerate(instances)]
    found = read_keypoints(
        dump(tmp_path / "m.json", {"meta_info": {"keypoint_id2name": names}, "instance_info": frames})
    )
    assert (found.layout, found.track) == ("halpe26", "5")
    np.testing.assert_allclose(found.pixels, halpe, rtol=1e-6)
    wholebody = np.concatenate([PERSON, np.ones((8, 116, 3), np.float32)], axis=1)
    np.save(tmp_path / "wholebody.npy", wholebody)
    np.testing.assert_array_equal(read_keypoints(tmp_path / "wholebody.npy").pixels, PERSON)


@pytest.mark.parametrize("persons", [1, 2])
def test_arrays_of_a_demonstration_are_in_human36ms_order(persons: int, tmp_path: Path) -> None:
    people = np.stack([h36m_person(8, SIZE, first) for first in range(persons)])
    np.savez_compressed(tmp_path / "input_keypoints_2d.npz", reconstruction=people)
    found = read_persons(tmp_path / "input_keypoints_2d.npz")
    assert [each.layout for each in found] == ["h36m"] * persons
    np.testing.assert_allclose([each.pixels for each in found], people)
    given = prepare(tmp_path / "input_keypoints_2d.npz", None, *SIZE, person=1)
    np.save(tmp_path / "a.npy", people[0])
    np.testing.assert_array_equal(given, prepare(tmp_path / "a.npy", "h36m", *SIZE))
    np.savez(tmp_path / "output_keypoints_3d.npz", reconstruction=np.zeros((8, 17, 3)))
    with pytest.raises(LiftingDataError, match="is the 3D poses of a demonstration"):
        read_persons(tmp_path / "output_keypoints_3d.npz")


def test_null_is_not_detected(tmp_path: Path) -> None:
    holes: Any = PERSON.tolist()
    holes[2], holes[4][9], holes[5][10][2] = None, [None, None, None], None
    found = read_keypoints(dump(tmp_path / "table.json", {"keypoints": holes})).pixels
    flat = [None if f is None else np.array(f, object).ravel().tolist() for f in holes]
    entries = [{"image_id": n, "keypoints": f} for n, f in enumerate(flat)]
    again = read_keypoints(dump(tmp_path / "results.json", entries)).pixels
    expected = PERSON.copy()
    expected[2], expected[4, 9], expected[5, 10] = 0, 0, 0
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(again, expected, rtol=1e-6)


@pytest.mark.parametrize(("rest", "track"), [((), None), ((0.9,), None), ((3,), "3"), ((0.9, 3), "3"), ((1, 3), "3")])
def test_what_follows_yolos_keypoints(rest: tuple[float, ...], track: str | None, tmp_path: Path) -> None:
    assert read_keypoints(yolo_labels(PERSON, tmp_path, rest)).track == track
    for channels in (2, 3):
        line = " ".join(str(v) for v in [0, 0.5, 0.5, 1, 1, *(PERSON[0, :, :channels] / 999).ravel(), *rest])
        (tmp_path / "one.txt").write_text(line)
        assert read_keypoints(tmp_path / "one.txt").pixels.shape == (1, 17, channels)


def test_two_persons_of_a_folder(tmp_path: Path) -> None:
    for number, track in ((1, "0001"), (2, "0012")):
        np.savez(tmp_path / f"track_{track}.npz", keypoints=PERSON[: 4 * number], width=640, height=480, first_frame=5)
    assert [(one.track, len(one.pixels)) for one in read_persons(tmp_path)] == [("12", 8), ("1", 4)]
    people = [{"pose_keypoints_2d": np.ravel(as_set(PERSON[:1], BODY_25)[0]).tolist()}] * 2
    file = dump(tmp_path / "json" / "a_000000000000_keypoints.json", {"people": people})
    for given in (file, file.parent):
        with pytest.raises(LiftingDataError, match="has several persons, and nothing tells which is which"):
            read_persons(given)


FRAME = PERSON[0].ravel().tolist()
INSTANCE = {"keypoints": [[1, 2, 3]] * 17, "keypoint_scores": [1] * 17}
IMAGES = [{"id": n, "file_name": f"{n}.jpg", "width": 640 + n, "height": 480} for n in range(2)]
LABELLED = [{"image_id": n, "keypoints": FRAME} for n in range(2)]


@pytest.mark.parametrize(
    ("form", "first"),
    [("clip_{}", 1), ("a_b_{}", 1), ("clip_{:04d}", 0), ("{}", 0), ("frame{}", 0)],
)
def test_yolos_labels_of_a_video_count_from_1(form: str, first: int, tmp_path: Path) -> None:
    folder = yolo_labels(PERSON, tmp_path)
    for number in range(1, len(PERSON) + 1):
        (folder / f"clip_{number}.txt").rename(folder / f"{form.format(number)}.txt")
    found = read_keypoints(folder)
    assert found.first == first and found.frames is not None
    assert found.frames.tolist() == list(range(1, len(PERSON) + 1)), "as the pictures of a folder are called"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "shape"),
        ({"people": []}, "nobody was found in any picture"),
        ({"people": [{"hand_left_keypoints_2d": []}]}, "people without pose_keypoints_2d"),
        ({"people": [{"pose_keypoints_2d": FRAME}]}, r"17 keypoints; 25 \(OpenPose's BODY_25\) or 18"),
        ({"people": [{"pose_keypoints_2d": FRAME[:-1]}]}, "no list of x, y, confidence"),
        ([{"frame_id": 0, "instances": [INSTANCE]}], "2D poses \\(not 3D\\)"),
        ([{"frame_id": 0, "instances": 3}], "not what the form that it begins in goes on with"),
        ({"instance_info": [], "meta_info": {"keypoint_id2name": {"0": "nose", "1": "paw"}}}, "lack left_eye"),
        ([{"keypoints": {"x": [1], "y": [1, 2]}}], "x, y and visible of one length"),
        ({"images": IMAGES, "annotations": LABELLED}, r"pictures of 2 sizes \(640 x 480, 641 x 480\)"),
        ({"images": IMAGES[:1], "annotations": LABELLED}, "an annotation of image_id=1, no such image"),
        ({"images": IMAGES, "annotations": []}, "nobody was found"),
        ([{"frame_id": 0, "persons": [{"keypoints": {"left_paw": [1, 2, 3]}}]}], "its 1 keypoints lack nose"),
    ],
)  # fmt: skip
def test_what_begins_like_a_tools_file_and_is_none(data: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(LiftingDataError, match=message):
        prepare(dump(tmp_path / "a.json", data), None, *SIZE)


def test_folders_and_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(LiftingDataError, match="one kind of them, is expected; it has none"):
        read_persons(tmp_path)
    dump(tmp_path / "a.json", {"keypoints": PERSON.tolist()})
    with pytest.raises(LiftingDataError, match=r"a\.json: the results of one picture are expected"):
        read_persons(tmp_path)
    (tmp_path / "b.txt").write_text("0 0.5 0.5 1 1")
    with pytest.raises(LiftingDataError, match=r"it has 1 \.json, 1 \.txt"):
        read_persons(tmp_path)
    with pytest.raises(LiftingDataError, match=r"b\.txt: a line of 5 numbers; YOLO's class, box and 17 keypoints"):
        read_persons(tmp_path / "b.txt")
    (tmp_path / "b.txt").write_text("left knee")
    with pytest.raises(LiftingDataError, match="numbers are expected"):
        read_persons(tmp_path / "b.txt")
    data: Any = {"a.mp4": {"custom": [PERSON[..., :2]]}}
    np.savez(tmp_path / "c.npz", positions_2d=data, metadata=np.array({}))
    with pytest.raises(LiftingDataError, match=r"data\.npz IN\.npz OUT\.npz --allow-pickle"):
        read_persons(tmp_path / "c.npz")
    np.save(tmp_path / "d.npy", data)
    with pytest.raises(LiftingDataError, match="cannot be read as an npy file of numbers"):
        read_persons(tmp_path / "d.npy")
    (tmp_path / "e.jsonl").write_text('{"persons": []}\n{"persons": ')
    with pytest.raises(LiftingDataError, match=r"e\.jsonl: cannot be read as JSON"):
        read_persons(tmp_path / "e.jsonl")


def test_gaps_have_a_longest(tmp_path: Path) -> None:
    person = coco_person(60, SIZE)
    person[10:36, COCO.index("left_wrist")] = 0
    np.savez(tmp_path / "a.npz", keypoints=person, width=SIZE[0], height=SIZE[1])
    with pytest.raises(
        LiftingDataError, match=r"needed was not detected in 26 frames in a row, 10 to 35.*most 25.*fill-gaps 26"
    ):
        prepare(tmp_path / "a.npz", fill=True)
    assert len(prepare(tmp_path / "a.npz", fill=26)) == 60
    person[57:] = 0
    np.savez(tmp_path / "a.npz", keypoints=person, width=SIZE[0], height=SIZE[1])
    with pytest.raises(LiftingDataError, match=r"detected in 26 frames in a row"):
        prepare(tmp_path / "a.npz", fill=2)
    person[10:36] = coco_person(60, SIZE)[10:36]
    np.savez(tmp_path / "a.npz", keypoints=person, width=SIZE[0], height=SIZE[1])
    with pytest.raises(LiftingDataError, match=r"nobody was detected in 3 frames in a row, 57 to 59"):
        prepare(tmp_path / "a.npz", fill=2)
    assert len(prepare(tmp_path / "a.npz", fill=3)) == 60


@pytest.mark.slow
def test_cocos_own_annotations(tmp_path: Path) -> None:
    """Of COCO's validation pictures, one person of one picture; and all of them are no video."""
    source = Path(__file__).resolve().parents[4] / "shared/data/keypoint_gt/coco_val2017_538.json.gz"
    if not source.is_file():
        pytest.skip("COCO's annotations are not there")
    data = json.loads(gzip.decompress(source.read_bytes()))
    with pytest.raises(LiftingDataError, match=r"pictures of \d+ sizes"):
        read_persons(dump(tmp_path / "all.json", data))
    one = next(each for each in data["annotations"] if each.get("num_keypoints", 0) > 12)
    found = read_keypoints(dump(tmp_path / "one.json", {**data, "annotations": [one]}))
    points = np.array(one["keypoints"], np.float32).reshape(17, 3)
    assert found.pixels.shape == (1, 17, 3) and (found.pixels[0, :, 2] > 0).sum() == one["num_keypoints"]
    np.testing.assert_array_equal(found.pixels[0, :, :2], points[:, :2] * (points[:, 2:] > 0))
    (image,) = (each for each in data["images"] if each["id"] == one["image_id"])
    assert (found.width, found.height) == (image["width"], image["height"])
