"""How far AP may be off for having been measured on so many pictures: a bootstrap that matches poses once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

from cycledistill.insight.intervals import bootstrap_interval

from .protocol import matched_poses

LEAST_IMAGES = 10
"""Of fewer, no interval is told."""
RESAMPLES = 500


class PictureAP:
    """COCO's AP where each picture counts so often, from matches that were made once.

    Which pose is a hit does not depend on other pictures; only the order of all poses by score does, and that is the
    same however often each counts.

    Args:
        truth: Annotations, as `coco_numbers` takes them; and so on.
        results: Result entries.
        sigmas: Per-joint standard deviations of OKS.
        images: Ids of the images that are evaluated.
    """

    def __init__(
        self, truth: COCO, results: Sequence[dict[str, Any]], sigmas: Sequence[float], images: Sequence[int]
    ) -> None:
        evaluation = matched_poses(truth, results, sigmas, images)
        self.recalls = evaluation.params.recThrs
        pairs = list(enumerate(evaluation.evalImgs))
        count = len(evaluation.params.imgIds)
        groups = [pairs[start : start + count] for start in range(0, len(pairs), count)]  # a category each
        self.categories = [_Category([(number % count, found) for number, found in group], count) for group in groups]

    def __call__(self, often: NDArray[np.float64]) -> float:
        """AP of pictures that count (images,) times; of categories with people, the mean; -1 where there are none."""
        found = [each.average_precision(often, self.recalls) for each in self.categories]
        known = [value for value in found if value is not None]
        return float(np.mean(known)) if known else -1.0


class _Category:
    """Poses of a category by score: hits and misses at each OKS threshold, and whose picture they are of."""

    def __init__(self, pictures: list[tuple[int, Any]], count: int) -> None:
        self.people = np.zeros(count)
        scores, owners, hits, ignored = [], [], [], []
        for number, found in pictures:
            if found is None:  # neither people nor poses
                continue
            self.people[number] = np.count_nonzero(np.asarray(found["gtIgnore"]) == 0)
            scores.append(np.asarray(found["dtScores"], dtype=float))
            owners.append(np.full(len(found["dtScores"]), number))
            hits.append(np.asarray(found["dtMatches"]) != 0)
            ignored.append(np.asarray(found["dtIgnore"]) != 0)
        if not scores:
            scores, owners, hits, ignored = [np.zeros(0)], [np.zeros(0, int)], [np.zeros((10, 0), bool)], []
            ignored = hits
        order = np.argsort(-np.concatenate(scores), kind="mergesort")
        self.owners = np.concatenate(owners)[order]
        hit, out = np.concatenate(hits, axis=1)[:, order], np.concatenate(ignored, axis=1)[:, order]
        self.hits, self.misses = hit & ~out, ~hit & ~out

    def average_precision(self, often: NDArray[np.float64], recalls: NDArray[np.float64]) -> float | None:
        """The mean over thresholds and recalls, as pycocotools interpolates it; ``None`` without people."""
        people = float(often @ self.people)
        if not people:
            return None
        weights = often[self.owners]
        hits, misses = np.cumsum(self.hits * weights, axis=1), np.cumsum(self.misses * weights, axis=1)
        recall = hits / people
        precision = hits / (hits + misses + np.spacing(1))
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        padded = np.pad(envelope, ((0, 0), (0, 1)))  # beyond the last pose precision is 0
        places = [np.searchsorted(each, recalls, side="left") for each in recall]
        return float(np.mean([each[place] for each, place in zip(padded, places, strict=True)]))


def ap_interval(
    truth: COCO, results: Sequence[dict[str, Any]], sigmas: Sequence[float], images: Sequence[int]
) -> list[float] | None:
    """Where AP lies with 95 %, by drawing the pictures anew; ``None`` of fewer than 10, and if all draws are alike.

    Persons of a picture are no independent samples, so pictures are drawn. Arguments as for `PictureAP`.
    """
    if len(images) < LEAST_IMAGES or not results:
        return None
    measure = PictureAP(truth, results, sigmas, images)
    low, high = bootstrap_interval(lambda often: measure(often.numpy()), len(images), resamples=RESAMPLES)
    # An AP of 0 in every picture says nothing of how far it is from that of others.
    return [round(low, 6), round(high, 6)] if low < high else None
