"""Files of person detections, in COCO's results format: boxes and scores by picture."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cycledistill.recipes.reading import texts

from .coco_file.boxes import is_numbers, refuse_other_forms
from .coco_file.checks import AN_ID, is_id
from .coco_file.chosen_categories import category_name
from .images import PoseDataError

_logger = logging.getLogger(__name__)

PERSON: Mapping[str, Any] = {"1": 1, "person": 1}
"""The categories of a file of persons: their ids by id and by name, both as text."""


@dataclass(frozen=True)
class Detected:
    """The persons found in one picture.

    Attributes:
        boxes: (N, 4): x, y, width, height in pixels.
        scores: (N,), 0 to 1.
        categories: (N,) ids of their categories in the file that they came from; ``None`` where they came from none.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    categories: tuple[Any, ...] | None = None

    def __getitem__(self, rows: Any) -> Detected:
        """Those of the persons at ``rows``, an array of indices or of truth values."""
        index = np.arange(len(self.boxes))[rows]
        own = None if self.categories is None else tuple(self.categories[row] for row in index)
        return Detected(self.boxes[index], self.scores[index], own)


def read_detections(path: str | Path, threshold: float = 0.0) -> dict[Any, Detected]:
    """Person boxes by image id.

    Args:
        path: A JSON list of ``image_id``, ``category_id`` (1 or ``"person"``, or left out), ``bbox`` (x, y, width,
            height) and ``score``, like the published ``COCO_val2017_detections_AP_H_56_person.json``.
        threshold: Boxes that score less are left out; boxes without area always are.

    Raises:
        PoseDataError: Missing, not JSON, not such a list, boxes that look like fractions of the picture; or all of it
            is left out, and why.

    Example:
        >>> found = read_detections("boxes.json", threshold=0.3)
        >>> predict(model, ["val2017/000000000785.jpg"], [found[785].boxes])
    """
    rows: dict[Any, list[list[float]]] = {}
    for entry in detection_entries(texts.read_json(path, PoseDataError), threshold):
        rows.setdefault(entry["image_id"], []).append([*entry["bbox"], entry["score"]])
    found = {image: np.array(values, dtype=np.float64) for image, values in rows.items()}
    if found:
        boxes = np.concatenate([values[:, :4] for values in found.values()])
        refuse_other_forms(boxes, np.full((len(boxes), 2), np.nan), str(path))
    return {image: Detected(values[:, :4], values[:, 4]) for image, values in found.items()}


def detection_entries(
    detections: Any, threshold: float = 0.0, categories: Mapping[str, Any] = PERSON
) -> list[dict[str, Any]]:
    """Those of the entries of a file of detections that count.

    Args:
        detections: A list of ``image_id``, ``category_id``, ``bbox`` and ``score``.
        threshold: Least score.
        categories: The ids that an entry gets, by what its ``category_id`` may be: an id or a name, as text. Without
            ``category_id`` it is the first.

    Raises:
        PoseDataError: Not a list of such entries; or all are left out, and why.
    """
    if not isinstance(detections, list):
        raise PoseDataError(
            f"the detections file holds no list but {detections!s:.40}; a list of image_id, category_id, bbox, score "
            "is expected"
        )
    kept: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    for entry in detections:
        _check_detection(entry)
        given = entry.get("category_id")
        category = next(iter(categories.values())) if given is None else categories.get(category_name(given))
        if category is None:
            left_out[f"of category {given!r:.40}"] += 1
        elif entry["score"] < threshold:
            left_out[f"that score below {threshold:g}"] += 1
        elif min(entry["bbox"][2:]) <= 0:
            left_out["without area"] += 1
        else:
            kept.append({**entry, "category_id": category})
    why = ", ".join(f"{number} {reason}" for reason, number in left_out.most_common(5))
    if left_out and not kept:
        wanted = ", ".join(dict.fromkeys(f"{own!r:.40}" for own in categories.values()))
        raise PoseDataError(f"none of {len(detections)} detections can be used: {why} (what counts: {wanted})")
    if left_out:
        _logger.info("%d of %d detections left out: %s", left_out.total(), len(detections), why)
    elif not kept:
        _logger.warning("the detections file is empty: nobody is looked at")
    return kept


def _check_detection(entry: Any) -> None:
    missing = [key for key in ("image_id", "bbox", "score") if not isinstance(entry, dict) or key not in entry]
    if missing:
        raise PoseDataError(f"a detection has no {missing[0]!r}: {str(entry)[:100]}")
    if not is_id(entry["image_id"]):
        raise PoseDataError(f"a detection has image_id {entry['image_id']!r:.80}: {AN_ID} is expected")
    if not is_numbers(entry["bbox"], 4) or not is_numbers([entry["score"]], 1):
        raise PoseDataError(
            f"a detection of image {entry['image_id']} has bbox {entry['bbox']!r:.80} and score "
            f"{entry['score']!r:.80}: x, y, width, height is expected, and one score, all finite numbers"
        )
    if entry["score"] > 1 + 1e-6:
        guess = "; is it a percentage? Divide by 100" if entry["score"] <= 100 else ""
        raise PoseDataError(
            f"a detection of image {entry['image_id']} has score {entry['score']:g}: a number from 0 to 1 is "
            f"expected{guess}"
        )
