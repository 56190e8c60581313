"""Average precision of predicted poses by the COCO protocol, for COCO and CrowdPose annotations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

from ..data.joints import JointSet, joined_result
from .ground_truth import GroundTruth, indexed
from .oks import oks_nms
from .parts import parts_of, with_area
from .protocol import NAMES, coco_numbers
from .uncertainty import ap_interval

CROWD_LEVELS = {"easy": (-1.0, 0.1), "medium": (0.1, 0.8), "hard": (0.8, 1.0)}
"""Half-open ranges of ``crowdIndex`` of CrowdPose's three levels."""


@dataclass(frozen=True)
class PosePrediction:
    """One predicted person.

    Attributes:
        image_id: The image's id in the annotation file.
        keypoints: (K, 3): x and y in picture pixels, and the joint's score.
        box_score: Score of the box the pose was predicted in.
        area: Area of that box in square pixels.
        category_id: The category's id in the annotation file.
    """

    image_id: Any
    keypoints: NDArray[np.float32]
    box_score: float
    area: float
    category_id: Any = 1


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
    by_category: bool = False,
) -> list[dict[str, Any]]:
    """Predictions as COCO result entries, scored and with duplicates suppressed per image.

    Ids of images and categories are the annotation file's own.

    Args:
        predictions: All predicted persons, in any order.
        joints: The joint set of the annotations.
        nms_threshold: OKS above which the lower-scored of two poses is dropped; ``None`` keeps all.
        keypoint_threshold: Joints below this do not count in a pose's score.
        by_category: Poses of different categories are no duplicates.
    """
    by_image: dict[Any, list[PosePrediction]] = defaultdict(list)
    for each in predictions:
        if each.keypoints.shape != (len(joints), 3):
            raise ValueError(
                f"a pose of shape {each.keypoints.shape} for image {each.image_id}: {joints.name} has {len(joints)} "
                f"joints, so ({len(joints)}, 3) is expected"
            )
        by_image[each.image_id, each.category_id if by_category else None].append(each)
    results = []
    for (image_id, _), persons in by_image.items():
        scores = np.array([pose_score(p.keypoints[:, 2], p.box_score, keypoint_threshold) for p in persons])
        kept: Sequence[int] = range(len(persons))
        if nms_threshold is not None:
            poses = np.stack([p.keypoints[:, :2] for p in persons])
            areas = np.array([p.area for p in persons])
            kept = oks_nms(poses, scores, areas, joints.sigmas, nms_threshold)
        results += [
            {
                "image_id": image_id,
                "category_id": persons[index].category_id,
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
    image_ids: Sequence[Any] | None = None,
    by_category: bool = False,
    interval: bool = False,
) -> dict[str, Any]:
    """COCO's ten numbers, or for annotations with ``crowdIndex`` CrowdPose's nine.

    Args:
        ground_truth: The annotations, as :func:`load_ground_truth` reads them.
        results: COCO result entries: ``image_id``, ``category_id``, ``keypoints`` and ``score``, with the ids of the
            annotation file.
        joints: The joint set; its sigmas are used.
        image_ids: Restrict the evaluation to these images; default: all.
        by_category: Evaluate each category by itself and average; default: whatever the category, a pose is a pose.
        interval: Also tell where AP lies with 95 %, by a bootstrap over the images, see `ap_interval`.

    Returns:
        ``AP AP50 AP75 APm APl AR AR50 AR75 ARm ARl``, or for CrowdPose ``AP AP50 AP75 AR AR50 AR75 APeasy APmedium
        APhard``. For joints with parts (COCO-WholeBody) also AP and AR of each part: ``APbody ARbody APfeet ...``, -1
        where no joint of it is labelled. An empty list of results gives zeros.
        With ``interval`` also ``AP_interval``, [low, high] or ``None``, and ``images``, their number.

    Raises:
        ValueError: Results for images, or by category for categories, that are not in the annotations, with another
            number of joints, or that are not finite (which COCO's evaluation would count as hits).
    """
    results = [joined_result(entry, joints) for entry in results]
    truth = ground_truth.split if by_category else ground_truth
    images = ground_truth.image_numbers
    strangers = list(dict.fromkeys(entry["image_id"] for entry in results if entry["image_id"] not in images))
    if strangers:
        raise ValueError(
            f"{len(strangers)} images with results are not in the annotations (first: {strangers[0]!r:.80}, ids there "
            f"are like {next(iter(images))!r:.80}): the results belong to another split or data set"
        )
    _check_poses(results, joints)
    ours = [
        {
            "image_id": images[entry["image_id"]],
            "category_id": ground_truth.category_number(entry.get("category_id")) if by_category else 1,
            "keypoints": list(entry["keypoints"]),
            "score": entry["score"],
        }
        for entry in results
    ]
    chosen = sorted(images.values() if image_ids is None else (images[own] for own in image_ids))
    crowded = all("crowdIndex" in truth.imgs[image] for image in chosen) and bool(chosen)
    placed = with_area(ours, joints)
    numbers = dict(zip(NAMES, coco_numbers(truth, placed, joints.sigmas, chosen), strict=True))
    told: dict[str, Any] = {}
    if interval:
        told = {"AP_interval": ap_interval(truth, placed, joints.sigmas, chosen), "images": len(chosen)}
    if not crowded:
        return numbers | _parts(truth, ours, joints, chosen) | told
    named = {name: numbers[name] for name in ("AP", "AP50", "AP75", "AR", "AR50", "AR75")}
    for level, (above, up_to) in CROWD_LEVELS.items():
        of_level = [image for image in chosen if above < truth.imgs[image]["crowdIndex"] <= up_to]
        found = coco_numbers(truth, ours, joints.sigmas, of_level) if of_level else [-1.0]
        named[f"AP{level}"] = float(found[0])
    return named | told


def _parts(truth: COCO, results: list[dict[str, Any]], joints: JointSet, images: Sequence[int]) -> dict[str, float]:
    """AP and AR of each part of the joints; -1 where nobody has a labelled joint of it."""
    numbers: dict[str, float] = {}
    for name, data, found, part in parts_of(truth.dataset, results, joints):
        there = any(person["num_keypoints"] > 0 for person in data["annotations"])
        stats = dict(zip(NAMES, coco_numbers(indexed(data), found, part.sigmas, images), strict=True)) if there else {}
        numbers |= {f"AP{name}": float(stats.get("AP", -1)), f"AR{name}": float(stats.get("AR", -1))}
    return numbers


def _check_poses(results: list[dict[str, Any]], joints: JointSet) -> None:
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
