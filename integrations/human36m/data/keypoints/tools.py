"""JSON as tools write it, one function a tool: mmpose, OpenPose, YOLO, COCO's annotations, ``cycledistill predict``.

Each brings its form to a list of results, see :class:`Results`; how these become persons over time is told in
``tracks.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...errors import LiftingDataError
from .frame_order import TRACKS
from .joint_sets import by_names, named_rows, openpose_to_coco, rows
from .person import Results


def results_of(data: Any, path: Path, image_id: Any = None) -> Results | None:
    """What JSON holds, if it is in the form of some tool; ``None`` for a table and for COCO's list of results.

    Args:
        data: What was parsed.
        path: The file, for messages.
        image_id: The number or name of the picture, where the file is of one picture; default, 0.

    Raises:
        LiftingDataError: In the form of a tool, but not what that writes.
    """
    try:
        return _results_of(data, path, 0 if image_id is None else image_id)
    except LiftingDataError:
        raise
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
        raise LiftingDataError(
            f"{path}: not what the form that it begins in goes on with: {type(error).__name__}: {error}"
        ) from error


def _results_of(data: Any, path: Path, picture: Any) -> Results | None:
    if isinstance(data, dict):
        if "instance_info" in data:
            return _mmpose(data["instance_info"], path, data.get("meta_info"))
        if "people" in data:
            return Results(_openpose(data["people"], path, picture), {"layout": "coco"})
        if "annotations" in data and "images" in data:
            return _coco_annotations(data, path)
        if "persons" in data:
            return _predicted([data], path)
        if data and all(isinstance(each, dict) and ({"people", "bodies"} & set(each)) for each in data.values()):
            found = [(name, each.get("people", each.get("bodies"))) for name, each in data.items()]  # AlphaPose's
            return Results([e for name, people in found for e in _openpose(people, path, name)], {"layout": "coco"})
        return None
    if not isinstance(data, list) or not data:
        return None
    if all(isinstance(each, dict) and "persons" in each for each in data):
        return _predicted(data, path)
    if all(isinstance(each, dict) and "instances" in each for each in data):
        return _mmpose(data, path, None)
    if all(isinstance(each, dict) and "keypoint_scores" in each for each in data):
        return _mmpose([{"frame_id": picture, "instances": data}], path, None)
    frames = data if all(isinstance(each, list) for each in data) else [data]
    people = [person for frame in frames for person in frame]
    if people and all(isinstance(each, dict) and isinstance(each.get("keypoints"), dict) for each in people):
        numbers = range(len(frames)) if frames is data else [picture]
        return Results([_yolo(each, path, n) for n, frame in zip(numbers, frames, strict=True) for each in frame], {})
    return None


def _entry(picture: Any, keypoints: Any, person: dict[str, Any]) -> dict[str, Any]:
    return {"image_id": picture, "keypoints": keypoints, **{name: person[name] for name in TRACKS if name in person}}


def _mmpose(frames: Any, path: Path, meta: Any) -> Results:
    """The inferencer's and the demonstrations' frames: ``instances`` of ``keypoints`` and ``keypoint_scores``."""
    names = _list(meta.get("keypoint_id2name", {}).values()) if isinstance(meta, dict) else []
    places = by_names(names, path) if names else None
    entries = []
    for order, frame in enumerate(frames):
        for person in frame["instances"] if isinstance(frame, dict) else []:
            points, scores = person.get("keypoints"), person.get("keypoint_scores")
            if not points or not scores or len(points) != len(scores) or any(len(point) != 2 for point in points):
                raise LiftingDataError(
                    f"{path}: keypoints (x, y) and as many keypoint_scores are expected of every instance, as mmpose "
                    "writes 2D poses (not 3D)"
                )
            joined = [[*point, score] for point, score in zip(points, scores, strict=True)]
            chosen = joined if places is None else [joined[place] for place in places]
            entries.append(_entry(frame.get("frame_id", order), chosen, person))
    of_h36m = names[:1] in (["root"], ["pelvis"])
    return Results(entries, {"layout": "h36m"} if of_h36m else {})


def _list(values: Any) -> list[str]:
    return [str(value) for value in values]


def _openpose(people: Any, path: Path, picture: Any) -> list[dict[str, Any]]:
    """``people`` of one picture; OpenPose's ``person_id`` is [-1] where it does not track."""
    found = []
    for person in people if isinstance(people, list) else []:
        flat = person.get("pose_keypoints_2d", person.get("joints")) if isinstance(person, dict) else None
        if flat is None:
            raise LiftingDataError(f"{path}: people without pose_keypoints_2d: OpenPose's JSON is expected")
        tracked = {} if person.get("person_id") in ([-1], -1) else person
        found.append(_entry(picture, openpose_to_coco(flat, path), tracked))
    return found


def _yolo(person: dict[str, Any], path: Path, picture: Any) -> dict[str, Any]:
    """``to_json()`` of Ultralytics: keypoints as x, y and visible."""
    parts = [person["keypoints"].get(name) for name in ("x", "y", "visible")]
    there = [part for part in parts if isinstance(part, list)]
    if len(there) < 2 or len({len(part) for part in there}) > 1:
        raise LiftingDataError(f"{path}: keypoints with x, y and visible of one length are expected, as YOLO writes")
    return _entry(picture, [list(point) for point in zip(*there, strict=True)], person)


def _predicted(frames: list[dict[str, Any]], path: Path) -> Results:
    """``poses.jsonl`` and ``poses/NAME.json`` of ``cycledistill predict``."""
    entries = [
        _entry(frame.get("picture", frame.get("image_id")), named_rows(person["keypoints"], path), person)
        for frame in frames
        for person in frame["persons"]
    ]
    return Results(entries, {"layout": "coco", **_size(frames, path)})


def _coco_annotations(data: dict[str, Any], path: Path) -> Results:
    """COCO's ground truth: pictures by their file's name, flags of visibility as a confidence of 1 or 0."""
    images = {image["id"]: image for image in data["images"] if isinstance(image, dict) and "id" in image}
    names = next((c["keypoints"] for c in data.get("categories") or [] if c.get("keypoints")), None)
    places = None if names is None else by_names(names, path)
    entries, used = [], []
    for person in data["annotations"]:
        if not person.get("keypoints"):
            continue
        image = images.get(person.get("image_id"))
        if image is None:
            raise LiftingDataError(f"{path}: an annotation of image_id={person.get('image_id')!r}, no such image")
        points = rows(person["keypoints"], path)
        points = points if places is None else points[places]
        points = np.where(points[:, 2:] > 0, np.minimum(points, [[np.inf, np.inf, 1]]), 0)
        entries.append(_entry(image.get("file_name", image["id"]), points.tolist() if points.any() else None, person))
        used.append(image)
    return Results(entries, {"layout": "coco", **_size(used, path)})


def _size(pictures: list[dict[str, Any]], path: Path) -> dict[str, Any]:
    sizes = {(each["width"], each["height"]) for each in pictures if "width" in each and "height" in each}
    if len(sizes) > 1:
        told = ", ".join(f"{width} x {height}" for width, height in sorted(sizes)[:3])
        raise LiftingDataError(f"{path}: pictures of {len(sizes)} sizes ({told}); one video's frames are expected")
    return dict(zip(("width", "height"), sizes.pop(), strict=True)) if sizes else {}
