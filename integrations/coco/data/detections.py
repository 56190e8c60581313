"""Files of person detections, in COCO's results format: boxes and scores by picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cycledistill.files import atomic_write

from .annotations import detection_entries, read_json
from .images import PoseDataError


@dataclass(frozen=True)
class Detected:
    """The persons found in one picture.

    Attributes:
        boxes: (N, 4): x, y, width, height in pixels.
        scores: (N,), 0 to 1.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]


def read_detections(path: str | Path, threshold: float = 0.0) -> dict[int, Detected]:
    """Person boxes by image id.

    Args:
        path: A JSON list of ``image_id``, ``category_id`` (1), ``bbox`` (x, y, width, height) and ``score``, like the
            published ``COCO_val2017_detections_AP_H_56_person.json``.
        threshold: Boxes that score less are left out; boxes without area always are.

    Raises:
        PoseDataError: Missing, not JSON, or not such a list.

    Example:
        >>> found = read_detections("boxes.json", threshold=0.3)
        >>> predict(model, ["val2017/000000000785.jpg"], [found[785].boxes])
    """
    rows: dict[int, list[list[float]]] = {}
    for entry in detection_entries(read_json(path), threshold):
        box = entry["bbox"]
        if min(box[2:]) > 0:
            rows.setdefault(entry["image_id"], []).append([*box, entry["score"]])
    found = {image: np.array(values, dtype=np.float64) for image, values in rows.items()}
    return {image: Detected(values[:, :4], values[:, 4]) for image, values in found.items()}


def write_detections(path: str | Path, found: Mapping[int, Detected]) -> None:
    """Write person boxes as the file that evaluation takes as ``data.detections``; beside, then renamed.

    Args:
        path: The JSON file.
        found: Image id -> what was found there.

    Raises:
        OSError: It cannot be written; a file that was there is as it was.
    """
    entries = [
        {"image_id": image, "category_id": 1, "bbox": box, "score": score}
        for image, each in found.items()
        for box, score in zip(each.boxes.tolist(), each.scores.tolist(), strict=True)
    ]
    atomic_write(path, lambda file: file.write_text(json.dumps(entries), encoding="utf-8"))


def image_id_of(name: str | Path) -> int:
    """COCO's id of a picture: the number that its file is named by.

    Raises:
        PoseDataError: The name is no number.

    Example:
        >>> image_id_of("val2017/000000000785.jpg")
        785
    """
    stem = Path(name).stem
    if not stem.isdecimal():
        raise PoseDataError(f"{name}: a detections file knows pictures by COCO's numbers, and this name is none")
    return int(stem)
