"""Who is who from frame to frame, by the likeness of poses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.coco_file.normalise import BOX_TO_AREA
from ..data.images import PoseDataError
from ..data.joints import JointSet
from ..evaluation.oks import oks
from .stream import Predicted


@dataclass
class _Track:
    pose: NDArray[np.float32]
    area: float
    seen: int


def track(
    found: Iterable[Predicted], joints: JointSet, *, threshold: float = 0.3, patience: int = 30
) -> Iterator[Predicted]:
    """The same frames, in which each person has a number that stays with them.

    Frame by frame the pair of a known person's last pose and a new pose that are most alike are one person, then the
    next pair, while their OKS is at least ``threshold``; whoever is left over is new. Nobody's motion is guessed: a
    person who is far from where they were seen last gets another number, and so may two who pass each other.

    Args:
        found: Frames of one size in order, of `predict_stream`.
        joints: The joint set, whose sigmas say how near is near.
        threshold: Least OKS of a person with their last pose.
        patience: Frames after which a person who was not seen is forgotten.

    Yields:
        Each frame with ``tracks``, numbers from 1 on in the order in which persons appear.

    Raises:
        PoseDataError: Frames of different sizes.

    Source: the greedy matching of Xiao, Wu and Wei, Simple Baselines for Human Pose Estimation and Tracking (ECCV
    2018), section 3, without the optical flow.

    Example:
        >>> for each in track(predict_stream(model, open_source("talk.mp4"), boxes), COCO):
        ...     print(each.frame.name, each.tracks)
    """
    known: dict[int, _Track] = {}
    last = 0
    size: tuple[int, int] | None = None
    for now, each in enumerate(found):
        if size is not None and size != each.frame.size:
            raise PoseDataError(
                f"{each.frame.name} is {each.frame.size[0]} x {each.frame.size[1]} pixels, those before it {size[0]} x "
                f"{size[1]}: persons are followed through frames of one size (leave --track out for others)"
            )
        size = each.frame.size
        known = {number: one for number, one in known.items() if now - one.seen <= patience}
        areas = np.prod(each.boxes[:, 2:], axis=1) * BOX_TO_AREA
        numbers = _matched(known, each.keypoints, areas, joints, threshold)
        for row, number in enumerate(numbers):
            if not number:
                last += 1
                numbers[row] = last
            known[int(numbers[row])] = _Track(each.keypoints[row], float(areas[row]), now)
        yield dataclasses.replace(each, tracks=numbers)


def _matched(
    known: dict[int, _Track],
    poses: NDArray[np.float32],
    areas: NDArray[np.float64],
    joints: JointSet,
    threshold: float,
) -> NDArray[np.int64]:
    """The number of each pose's person, 0 for a new one."""
    numbers = np.zeros(len(poses), np.int64)
    if not known or not len(poses):
        return numbers
    names, tracks = list(known), list(known.values())
    before = np.stack([one.pose[:, :2] for one in tracks])
    alike = oks(before, poses[..., :2], np.array([one.area for one in tracks]), areas, joints.sigmas)
    for _ in range(min(alike.shape)):
        row, column = np.unravel_index(alike.argmax(), alike.shape)
        if alike[row, column] < threshold:
            break
        numbers[column] = names[row]
        alike[row], alike[:, column] = -1, -1
    return numbers
