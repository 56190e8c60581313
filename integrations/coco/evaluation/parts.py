"""Parts of a joint set that are evaluated by themselves: COCO-WholeBody's body, feet, face and hands.

A person counts for a part where a joint of it is labelled, and a prediction where a joint of it has a score above 0.
Both are judged on the area of the person. The area of a prediction, which tells medium from large, is that of the first
part, the body, also for all joints together.

Source: the evaluation of COCO-WholeBody (Jin et al., ECCV 2020).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..data.joints import JointSet


def parts_of(
    annotations: dict[str, Any], results: Sequence[dict[str, Any]], joints: JointSet
) -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]], JointSet]]:
    """For each part its name, and annotations, results and joints as if there were nothing else."""
    for name, start, stop in joints.parts:
        part = slice(3 * start, 3 * stop)
        entries = []
        for entry in annotations["annotations"]:
            points = list(entry["keypoints"][part])
            labelled = sum(flag > 0 for flag in points[2::3]) if entry["num_keypoints"] else 0
            entries.append({**entry, "keypoints": points, "num_keypoints": labelled})
        found = [{**each, "keypoints": list(each["keypoints"][part])} for each in results]
        found = [each for each in found if any(score > 0 for score in each["keypoints"][2::3])]
        yield name, {**annotations, "annotations": entries}, found, joints.part(name)


def with_area(results: Sequence[dict[str, Any]], joints: JointSet) -> list[dict[str, Any]]:
    """Copies of results; where the joints have parts, with the ``area`` of the rectangle around the first part."""
    copies = [dict(each) for each in results]
    for each in copies if joints.parts else ():
        _, start, stop = joints.parts[0]
        x, y = (each["keypoints"][3 * start + axis : 3 * stop : 3] for axis in (0, 1))
        each["area"] = (max(x) - min(x)) * (max(y) - min(y))
    return copies
