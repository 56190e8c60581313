"""COCO-WholeBody's annotations, whose joints are spread over five fields, with all joints in ``keypoints``.

Source: the data format of COCO-WholeBody (Jin et al., ECCV 2020).
"""

from __future__ import annotations

from typing import Any

from .joint_set import JointError, JointSet
from .wholebody import FACE, HAND, WHOLEBODY

FIELDS = {"keypoints": 17, "foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}
"""Where the 133 joints are, in their order, and how many."""


def with_all_joints(annotations: dict[str, Any], joints: JointSet) -> dict[str, Any]:
    """A COCO-WholeBody file as a keypoint file of these joints; any other file as it is.

    For the whole body the five fields become one; where a field's flag (``foot_valid``, ...) is false, its joints are
    unlabelled. For hands and faces each valid one becomes an annotation of its own, in its own box.

    Args:
        annotations: A keypoint file's contents, checked; untouched.
        joints: What is looked for.

    Raises:
        JointError: An annotation lacks a field, or holds another number of joints there.
    """
    entries = annotations["annotations"]
    if not any("face_kpts" in entry or "lefthand_kpts" in entry for entry in entries):
        return annotations
    if joints.names == WHOLEBODY.names:
        return {**annotations, "annotations": [_joined(entry) for entry in entries]}
    parts = {HAND.names: ("lefthand", "righthand"), FACE.names: ("face",)}.get(joints.names)
    if parts is None:
        return annotations
    found = [_alone(entry, part) for entry in entries for part in parts if entry.get(f"{part}_valid")]
    return {**annotations, "annotations": [{**entry, "id": number} for number, entry in enumerate(found, 1)]}


def split_result(result: dict[str, Any], joints: JointSet) -> dict[str, Any]:
    """A result as the data set's own evaluation takes it: of COCO-WholeBody's joints ``keypoints``, ``foot_kpts``, ...

    Args:
        result: A COCO result entry with all joints in ``keypoints``.
        joints: Of which joints; a result of others than COCO-WholeBody's is returned as it is.
    """
    if joints.names != WHOLEBODY.names:
        return result
    rest, split = list(result["keypoints"]), dict(result)
    for field, number in FIELDS.items():
        split[field], rest = rest[: 3 * number], rest[3 * number :]
    return split


def joined_result(result: dict[str, Any], joints: JointSet) -> dict[str, Any]:
    """A result with all joints in ``keypoints``: what `split_result` took apart, or any other as it is."""
    apart = joints.names == WHOLEBODY.names and len(result["keypoints"]) == 3 * FIELDS["keypoints"]
    if not apart or not all(isinstance(result.get(field), list) for field in FIELDS):
        return result
    return {**result, "keypoints": [number for field in FIELDS for number in result[field]]}


def _joined(entry: dict[str, Any]) -> dict[str, Any]:
    if len(entry.get("keypoints", ())) == 3 * len(WHOLEBODY):
        return entry
    points: list[float] = []
    for field in FIELDS:
        points += _field(entry, field)
    return {**entry, "keypoints": points, "num_keypoints": sum(flag > 0 for flag in points[2::3])}


def _alone(entry: dict[str, Any], part: str) -> dict[str, Any]:
    points, box = _field(entry, f"{part}_kpts"), entry.get(f"{part}_box")
    if not isinstance(box, list) or len(box) != 4:
        raise JointError(f"annotation {entry['id']} has no {part}_box of four numbers, and {part}_valid is true")
    own: dict[str, Any] = {key: entry[key] for key in ("image_id", "category_id", "iscrowd") if key in entry}
    return {**own, "bbox": box, "keypoints": points, "num_keypoints": sum(flag > 0 for flag in points[2::3])}


def _field(entry: dict[str, Any], field: str) -> list[float]:
    points, number = entry.get(field), 3 * FIELDS[field]
    if not isinstance(points, list) or len(points) != number:
        held = "no list" if not isinstance(points, list) else f"{len(points)} numbers"
        raise JointError(f"annotation {entry['id']}: {field} holds {held}; {number} are expected, of COCO-WholeBody")
    valid = entry.get(field.replace("_kpts", "_valid"), True) if field != "keypoints" else True
    return points if valid else [0.0] * number
