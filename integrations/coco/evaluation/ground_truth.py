"""Annotations as COCO's evaluation holds them, and the way from an annotation file's own ids to its ids."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from pycocotools.coco import COCO

from ..data.coco_file.normalise import Annotations, normalised
from ..data.joints import JointSet


class GroundTruth(COCO):
    """What poses are compared with: pycocotools' index over a private copy of the annotations, of one category.

    Args:
        annotations: What `normalised` made of a file.

    Attributes:
        image_numbers: The file's own id of each image -> its id here.
        split: The same annotations, each of its own category.
    """

    def __init__(self, annotations: Annotations) -> None:
        super().__init__()
        self.annotations = annotations
        self.image_numbers = {own: number for number, own in enumerate(annotations.image_ids, 1)}
        entries = [{**entry, "category_id": 1} for entry in annotations.data["annotations"]]
        one = [{"id": 1, "name": "any" if len(annotations.category_ids) > 1 else "person"}]
        _index(self, {**annotations.data, "annotations": entries, "categories": one})

    @cached_property
    def split(self) -> COCO:
        """The same annotations, each of its own category."""
        entries = [dict(entry) for entry in self.annotations.data["annotations"]]
        return indexed({**self.annotations.data, "annotations": entries})

    def category_number(self, own: Any) -> int:
        """The id here of a category that the file or a result calls ``own``.

        Raises:
            ValueError: There is no such category.
        """
        ids = self.annotations.category_ids
        if own not in ids:
            raise ValueError(f"a result has category_id {own!r:.80}; the annotations have {list(ids)!r:.200}")
        return ids.index(own) + 1


def indexed(data: dict[str, Any]) -> COCO:
    """Annotations in COCO's own form as pycocotools holds them."""
    truth = COCO()
    _index(truth, data)
    return truth


def _index(truth: COCO, data: dict[str, Any]) -> None:
    truth.dataset = data
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()


def load_ground_truth(annotations: Any, joints: JointSet, categories: Sequence[Any] | None = None) -> GroundTruth:
    """The annotations of a COCO keypoint file, ready to be evaluated against.

    Who counts is decided by `normalised`, as in training. Where annotations have no ``area`` above 0 it is 0.53 times
    the box, as CrowdPose's own evaluation takes it.

    Args:
        annotations: The file's contents, or what `normalised` made of them.
        joints: The joints looked for.
        categories: Ids or names of categories; default: all that have these joints.

    Raises:
        PoseDataError: A ``ValueError``. See `normalised`; or nobody is left, and why each was left out.

    Example:
        >>> truth = load_ground_truth(read_json("val.json"), COCO)
        >>> evaluate_poses(truth, read_json("results.json"), COCO)["AP"]
    """
    found = normalised(annotations, joints, categories)
    found.check_somebody()
    return GroundTruth(found)
