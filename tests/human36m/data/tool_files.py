"""One person's keypoints in the files of the tools people use, each written by the tool's documented form.

The orders of joints are written out by name here, and not taken from the reader.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

COCO = (
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist "
    "right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
).split()
OPENPOSE_18 = (
    "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip right_knee "
    "right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear"
).split()
BODY_25 = (
    "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist mid_hip right_hip right_knee "
    "right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear left_big_toe left_small_toe "
    "left_heel right_big_toe right_small_toe right_heel"
).split()
Person = NDArray[np.float32]
SIZE = (640, 480)


def as_set(person: Person, names: list[str]) -> list[list[list[float]]]:
    """COCO's keypoints in another order, 3 wherever COCO has no such keypoint."""
    extra = np.full((len(person), 1, 3), 3, np.float32)
    return np.concatenate([person, extra], 1)[
        :, [COCO.index(name) if name in COCO else len(COCO) for name in names]
    ].tolist()  # fmt: skip


def dump(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def _instances(frame: Person) -> list[dict[str, Any]]:
    points, scores = frame[:, :2].tolist(), frame[:, 2].tolist()
    return [{"keypoints": points, "keypoint_scores": scores, "bbox": [[1, 2, 3, 4]], "bbox_score": 0.9}]


def mmpose_video(person: Person, folder: Path) -> Path:
    frames = [{"frame_id": number, "instances": _instances(frame)} for number, frame in enumerate(person)]
    return dump(folder / "clip.json", frames)


def mmpose_demonstration(person: Person, folder: Path) -> Path:
    names = {str(number): name for number, name in enumerate(COCO)}
    frames = [{"frame_id": number, "instances": _instances(frame)} for number, frame in enumerate(person, 1)]
    meta = {"dataset_name": "coco", "num_keypoints": 17, "keypoint_id2name": names}
    return dump(folder / "results_clip.json", {"meta_info": meta, "instance_info": frames})


def mmpose_pictures(person: Person, folder: Path) -> Path:
    for number, frame in enumerate(person):
        dump(folder / "predictions" / f"frame_{number}.json", _instances(frame))
    return folder / "predictions"


def coco_results(person: Person, folder: Path) -> Path:
    entries = [{"image_id": n, "category_id": 1, "keypoints": f.ravel().tolist(), "score": 1} for n, f in _each(person)]
    return dump(folder / "results.json", entries)


def coco_annotations(person: Person, folder: Path) -> Path:
    """Ids in no order, categories whose keypoints stand in another order, visibility as a flag."""
    order = COCO[::-1]
    ids = np.random.default_rng(0).permutation(len(person)).tolist()
    images = [{"id": i, "file_name": f"{n:06}.jpg", "width": SIZE[0], "height": SIZE[1]} for n, i in enumerate(ids)]
    flags = person.copy()
    flags[..., 2] = 2 - np.arange(17) % 2
    points = as_set(flags, order)
    people = [
        {"id": 7 + n, "image_id": i, "category_id": 1, "keypoints": np.ravel(points[n]).tolist(), "num_keypoints": 17}
        for n, i in enumerate(ids)
    ]
    cars = [{"id": 900, "image_id": ids[0], "category_id": 3, "bbox": [0, 0, 5, 5]}]
    categories = [{"id": 3, "name": "car"}, {"id": 1, "name": "person", "keypoints": order}]
    return dump(folder / "gt.json", {"images": images, "annotations": cars + people, "categories": categories})


def _openpose(frame: list[list[float]], person_id: int = -1) -> dict[str, Any]:
    flat = np.ravel(frame).tolist()
    return {"version": 1.3, "people": [{"person_id": [person_id], "pose_keypoints_2d": flat, "face_keypoints_2d": []}]}


def openpose(person: Person, folder: Path) -> Path:
    for number, frame in enumerate(as_set(person, BODY_25)):
        dump(folder / "json" / f"clip2_{number:012}_keypoints.json", _openpose(frame))
    return folder / "json"


def openpose_coco(person: Person, folder: Path) -> Path:
    for number, frame in enumerate(as_set(person, OPENPOSE_18)):
        dump(folder / "json" / f"clip_{number:012}_keypoints.json", _openpose(frame))
    return folder / "json"


def alphapose(person: Person, folder: Path) -> Path:
    entries = [
        {"image_id": f"{n}.jpg", "category_id": 1, "keypoints": f.ravel().tolist(), "score": 2.5, "idx": [0.0]}
        for n, f in _each(person)
    ]
    return dump(folder / "alphapose-results.json", entries)


def alphapose_open(person: Person, folder: Path) -> Path:
    frames = as_set(person, OPENPOSE_18)
    return dump(folder / "alphapose-open.json", {f"{n}.jpg": _openpose(frame) for n, frame in enumerate(frames)})


def _yolo(frame: Person) -> dict[str, Any]:
    x, y, visible = frame.T.tolist()
    box = {"x1": 1.0, "y1": 2.0, "x2": 3.0, "y2": 4.0}
    joints = {"x": x, "y": y, "visible": visible}
    return {"name": "person", "class": 0, "confidence": 0.9, "box": box, "track_id": 1, "keypoints": joints}


def yolo_json(person: Person, folder: Path) -> Path:
    return dump(folder / "yolo.json", [[_yolo(frame)] for frame in person])


def yolo_pictures(person: Person, folder: Path) -> Path:
    for number, frame in enumerate(person):
        dump(folder / "yolo" / f"clip_{number}.json", [_yolo(frame)])
    return folder / "yolo"


def yolo_labels(person: Person, folder: Path, rest: tuple[float, ...] = (0.87, 3)) -> Path:
    (folder / "labels").mkdir()
    for number, frame in enumerate(person):
        values = [0, 0.5, 0.5, 0.2, 0.4, *(frame / [*SIZE, 1]).ravel().tolist(), *rest]
        (folder / "labels" / f"clip_{number + 1}.txt").write_text(" ".join(f"{value:g}" for value in values) + "\n")
    return folder / "labels"


def videopose3d(person: Person, folder: Path) -> Path:
    """Its file is a pickle, made plain by the command for that."""
    from cycledistill.integrations.human36m.data.npz import main

    meta = {"layout_name": "coco", "num_joints": 17, "keypoints_symmetry": [[1, 3], [2, 4]]}
    meta["video_metadata"] = {"clip.mp4": {"w": SIZE[0], "h": SIZE[1]}}
    data: Any = {"clip.mp4": {"custom": [person[..., :2]]}}
    np.savez_compressed(folder / "data_2d_custom.npz", positions_2d=data, metadata=np.array(meta))
    assert main([str(folder / "data_2d_custom.npz"), str(folder / "plain.npz"), "--allow-pickle"]) == 0
    return folder / "plain.npz"


def array(person: Person, folder: Path) -> Path:
    np.save(folder / "a.npy", person)
    return folder / "a.npy"


def npz(person: Person, folder: Path) -> Path:
    np.savez(folder / "a.npz", keypoints=person[:, ::-1], joints=np.array(COCO[::-1]), width=SIZE[0], height=SIZE[1])
    return folder / "a.npz"


def predicted(person: Person, folder: Path) -> Path:
    frames = [
        {"picture": f"frame {n}", "image_id": n, "width": SIZE[0], "height": SIZE[1],
         "persons": [{"track": 4, "score": 0.9, "keypoints": dict(zip(COCO, frame.tolist(), strict=True))}]}
        for n, frame in enumerate(person)
    ]  # fmt: skip
    (folder / "poses.jsonl").write_text("".join(json.dumps(frame) + "\n" for frame in frames))
    return folder / "poses.jsonl"


def _each(person: Person) -> list[tuple[int, Person]]:
    return list(enumerate(person))


TOOLS: dict[str, Callable[[Person, Path], Path]] = {
    each.__name__: each
    for each in (
        mmpose_video, mmpose_demonstration, mmpose_pictures, coco_results, coco_annotations, openpose, openpose_coco,
        alphapose, alphapose_open, yolo_json, yolo_pictures, yolo_labels, videopose3d, array, npz, predicted,
    )
}  # fmt: skip
