"""Average precision of predicted poses by the COCO protocol, for COCO and CrowdPose annotations."""

from __future__ import annotations

import contextlib
import copy
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO as GroundTruth
from pycocotools.cocoeval import COCOeval

from ..data.annotations import check_annotations
from ..data.joints import JointSet
from .oks import oks_nms

BOX_TO_AREA = 0.53
"""Area of a person over that of the box, where annotations carry no area (CrowdPose)."""
CROWD_LEVELS = {"easy": (-1.0, 0.1), "medium": (0.1, 0.8), "hard": (0.8, 1.0)}
"""Half-open ranges of ``crowdIndex`` of CrowdPose's three levels."""
_COCO_NAMES = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")


@dataclass(frozen=True)
class PosePrediction:
    """One predicted person.

    Attributes:
        image_id: The image's id in the annotation file.
        keypoints: (K, 3): x and y in picture pixels, and the joint's score.
        box_score: Score of the box the pose was predicted in.
        area: Area of that box in square pixels.
    """

    image_id: int
    keypoints: NDArray[np.float32]
    box_score: float
    area: float


def pose_score(keypoint_scores: NDArray[np.floating], box_score: float, threshold: float = 0.2) -> float:
    """Box score times the mean score of the joints above ``threshold``; 0 when there is none."""
    above = keypoint_scores[keypoint_scores > threshold]
    return float(box_score * above.mean()) if above.size else 0.0


def to_results(
    predictions: Iterable[PosePrediction],
    joints: JointSet,
    *,
    nms_threshold: float | None = 0.9,
    keypoint_threshold: float = 0.2,
) -> list[dict[str, Any]]:
    """Predictions as COCO result entries, scored and with duplicates suppressed per image.

    Args:
        predictions: All predicted persons, in any order.
        joints: The joint set of the annotations.
        nms_threshold: OKS above which the lower-scored of two poses is dropped; ``None`` keeps all.
        keypoint_threshold: Joints below this do not count in a pose's score.
    """
    by_image: dict[int, list[PosePrediction]] = defaultdict(list)
    for each in predictions:
        if each.keypoints.shape != (len(joints), 3):
            raise ValueError(
                f"a pose of shape {each.keypoints.shape} for image {each.image_id}: {joints.name} has {len(joints)} "
                f"joints, so ({len(joints)}, 3) is expected"
            )
        by_image[each.image_id].append(each)
    results = []
    for image_id, persons in by_image.items():
        scores = np.array([pose_score(p.keypoints[:, 2], p.box_score, keypoint_threshold) for p in persons])
        kept: Sequence[int] = range(len(persons))
        if nms_threshold is not None:
            poses = np.stack([p.keypoints[:, :2] for p in persons])
            areas = np.array([p.area for p in persons])
            kept = oks_nms(poses, scores, areas, joints.sigmas, nms_threshold)
        results += [
            {
                "image_id": image_id,
                "category_id": 1,
                "keypoints": persons[index].keypoints.astype(float).ravel().tolist(),
                "score": float(scores[index]),
            }
            for index in kept
        ]
    return results


def evaluate_poses(
    ground_truth: GroundTruth,
    results: list[dict[str, Any]],
    joints: JointSet,
    *,
    image_ids: Sequence[int] | None = None,
) -> dict[str, float]:
    """COCO's ten numbers, or for annotations with ``crowdIndex`` CrowdPose's nine.

    Args:
        ground_truth: The annotations, as :func:`load_ground_truth` reads them.
        results: COCO result entries: ``image_id``, ``category_id``, ``keypoints`` and ``score``.
        joints: The joint set; its sigmas are used.
        image_ids: Restrict the evaluation to these images; default: all.

    Returns:
        ``AP AP50 AP75 APm APl AR AR50 AR75 ARm ARl``, or for CrowdPose ``AP AP50 AP75 AR AR50 AR75 APeasy APmedium
        APhard``. An empty list of results gives zeros.

    Raises:
        ValueError: Results for images that are not in the annotations, with another number of joints, or that are not
            finite (which COCO's evaluation would count as hits).
    """
    known = set(ground_truth.getImgIds())
    strangers = sorted({entry["image_id"] for entry in results} - known)
    if strangers:
        raise ValueError(
            f"{len(strangers)} images with results are not in the annotations (first: {strangers[0]}): the results "
            "belong to another split or data set"
        )
    expected = 3 * len(joints)
    wrong = next((entry for entry in results if len(entry["keypoints"]) != expected), None)
    if wrong is not None:
        raise ValueError(
            f"a result for image {wrong['image_id']} holds {len(wrong['keypoints'])} numbers: {expected} are expected "
            f"({len(joints)} joints of {joints.name}, each x, y, score)"
        )
    broken = [entry for entry in results if not np.isfinite([*entry["keypoints"], entry["score"]]).all()]
    if broken:
        raise ValueError(
            f"{len(broken)} of {len(results)} predicted poses are not finite numbers (first: image "
            f"{broken[0]['image_id']}): the model's output is nan or infinite"
        )
    images = sorted(known if image_ids is None else image_ids)
    crowded = all("crowdIndex" in ground_truth.imgs[image] for image in images) and bool(images)
    stats = _summary(ground_truth, results, joints, images)
    numbers = dict(zip(_COCO_NAMES, stats, strict=True))
    if not crowded:
        return numbers
    named = {name: numbers[name] for name in ("AP", "AP50", "AP75", "AR", "AR50", "AR75")}
    for level, (above, up_to) in CROWD_LEVELS.items():
        chosen = [image for image in images if above < ground_truth.imgs[image]["crowdIndex"] <= up_to]
        named[f"AP{level}"] = float(_summary(ground_truth, results, joints, chosen)[0]) if chosen else -1.0
    return named


def load_ground_truth(annotations: dict[str, Any], joints: JointSet) -> GroundTruth:
    """Annotations in COCO's format as pycocotools holds them.

    Where annotations have no ``area`` it is 0.53 times the box, as CrowdPose's own evaluation takes it.

    Raises:
        ValueError: No images, no annotations, entries without their keys, persons with another number of joints, boxes
            or keypoints that are no finite numbers, ids used twice, or nobody with a labelled joint.
    """
    check_annotations(annotations)
    data = copy.deepcopy(annotations)
    data.setdefault("categories", [{"id": 1, "name": "person"}])
    data.setdefault("info", {})
    for person in data["annotations"]:
        person.setdefault("iscrowd", 0)
        person.setdefault("category_id", 1)
        if not joints.has_area or "area" not in person:
            person["area"] = BOX_TO_AREA * person["bbox"][2] * person["bbox"][3]
        points = person.get("keypoints", ())
        number = len(points)
        if number not in (0, 3 * len(joints)) or (number == 0 and not person["iscrowd"] and "keypoints" not in person):
            raise ValueError(
                f"annotation {person.get('id')} holds {number} keypoint numbers: {3 * len(joints)} are expected "
                f"({len(joints)} joints of {joints.name})"
            )
        person.setdefault("num_keypoints", sum(flag > 0 for flag in points[2::3]))
    if not any(person["num_keypoints"] > 0 and person["category_id"] == 1 for person in data["annotations"]):
        raise ValueError("nobody in the annotation file has a labelled joint and category_id 1: there is no AP")
    truth = GroundTruth()
    truth.dataset = data
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def _summary(
    truth: GroundTruth,
    results: list[dict[str, Any]],
    joints: JointSet,
    images: Sequence[int],
) -> NDArray[np.float64]:
    chosen = set(images)
    mine = [entry for entry in results if entry["image_id"] in chosen]
    if not mine:
        return np.zeros(len(_COCO_NAMES))
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(mine), "keypoints")
        evaluation.params.imgIds = list(images)
        evaluation.params.kpt_oks_sigmas = np.asarray(joints.sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats: NDArray[np.float64] = evaluation.stats
    return stats
