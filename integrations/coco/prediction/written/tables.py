"""Predictions as text: COCO's results, a JSON file a picture or a line a frame, and a table.

Each function is a context that gives what takes one `Predicted` after the other. The files have their names when the
context ends; where it ends by an error, those that grow are not there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cycledistill.files import atomic_file, atomic_write
from cycledistill.recipes.prediction.tables import csv_table, json_list

from ...data.joints import JointSet, split_result
from ...evaluation.average_precision import PosePrediction, to_results
from ..stream import Predicted

Add = Callable[[Predicted], None]
"""Takes the predictions of a frame."""


@contextmanager
def results_file(path: Path, joints: JointSet, threshold: float) -> Iterator[Add]:
    """COCO's results, as its evaluation server takes them for test-dev: one list, an entry a person.

    ``category_id`` is that of the file of boxes, and 1 without one.

    Args:
        path: The JSON file.
        joints: The joint set.
        threshold: Joints that score less do not count in a pose's score.
    """
    with json_list(path) as write:

        def add(found: Predicted) -> None:
            categories = found.categories or [1] * len(found)
            rows = zip(found.keypoints, found.box_scores.tolist(), categories, strict=True)
            # doubles are gone already, so the boxes' areas do not matter
            persons = [PosePrediction(found.image_id, pose, score, 0.0, own) for pose, score, own in rows]
            for entry in to_results(persons, joints, nms_threshold=None, keypoint_threshold=threshold):
                write(split_result(entry, joints))

        yield add


@contextmanager
def picture_files(folder: Path, joints: JointSet) -> Iterator[Add]:
    """One JSON file a picture, ``FOLDER/NAME.json``, there as soon as the picture is done."""

    def add(found: Predicted) -> None:
        path = folder / f"{found.frame.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(described(found, joints), indent=1)
        atomic_write(path, lambda file: file.write_text(f"{text}\n", encoding="utf-8"))

    yield add


@contextmanager
def lines_file(path: Path, joints: JointSet) -> Iterator[Add]:
    """One JSON object a line and frame, for videos."""
    with atomic_file(path) as file, file.open("w", encoding="utf-8") as text:
        yield lambda found: print(json.dumps(described(found, joints)), file=text)


@contextmanager
def table_file(path: Path, joints: JointSet) -> Iterator[Add]:
    """A CSV file of a row a person; columns are named after the joints."""
    columns = [f"{name}_{what}" for name in joints.names for what in ("x", "y", "score")]
    before = ["picture", "image_id", "person", "track", "score", "left", "top", "width", "height"]
    with csv_table(path, [*before, *columns]) as write:

        def add(found: Predicted) -> None:
            for number, (pose, box) in enumerate(zip(found.keypoints, found.boxes, strict=True)):
                who = "" if found.tracks is None else int(found.tracks[number])
                score = round(float(found.scores[number]), 5)
                places = [value for joint in pose.tolist() for value in _rounded(joint)]
                sides = [round(value, 3) for value in box.tolist()]
                write([found.frame.name, found.image_id, number, who, score, *sides, *places])

        yield add


def described(found: Predicted, joints: JointSet) -> dict[str, Any]:
    """A frame's persons as plain data: ``keypoints`` are x, y in pixels and the score, by the joint's name."""
    width, height = found.frame.size
    persons = []
    for number, pose in enumerate(found.keypoints.tolist()):
        person: dict[str, Any] = {} if found.tracks is None else {"track": int(found.tracks[number])}
        person |= {
            "score": round(float(found.scores[number]), 5),
            "box": [round(value, 3) for value in found.boxes[number].tolist()],
            "box_score": round(float(found.box_scores[number]), 5),
            "keypoints": {name: _rounded(joint) for name, joint in zip(joints.names, pose, strict=True)},
        }
        persons.append(person)
    about = {"picture": found.frame.name, "image_id": found.image_id, "width": width, "height": height}
    return {**about, "persons": persons}


def _rounded(joint: list[float]) -> list[float]:
    return [round(joint[0], 3), round(joint[1], 3), round(joint[2], 5)]
