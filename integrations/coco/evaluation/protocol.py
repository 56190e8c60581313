"""COCO's keypoint protocol by pycocotools, or by faster-coco-eval where it is installed: the same numbers, sooner."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cycledistill.versions import require

NAMES = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")


@functools.cache
def has_faster() -> bool:
    """Whether faster-coco-eval is installed (the extra ``faster``)."""
    require("faster-coco-eval")
    return importlib.util.find_spec("faster_coco_eval") is not None


def coco_numbers(
    truth: COCO,
    results: Sequence[dict[str, Any]],
    sigmas: Sequence[float],
    images: Sequence[int],
    faster: bool | None = None,
) -> NDArray[np.float64]:
    """The ten numbers of `NAMES`; zeros where there are no results.

    Args:
        truth: Annotations that fulfil what pycocotools takes for granted.
        results: ``image_id``, ``category_id``, ``keypoints`` and ``score``, with the ids of ``truth``; and ``area``,
            where it is not that of the rectangle around the keypoints.
        sigmas: Per-joint standard deviations of OKS.
        images: Ids of the images that are evaluated.
        faster: By faster-coco-eval; default: where it is installed.
    """
    chosen = set(images)
    mine = [dict(entry) for entry in results if entry["image_id"] in chosen]
    if not mine:
        return np.zeros(len(NAMES))
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = _faster(truth, mine) if (has_faster() if faster is None else faster) else _plain(truth, mine)
        evaluation.params.imgIds = list(images)
        evaluation.params.catIds = sorted(truth.getCatIds())
        evaluation.params.kpt_oks_sigmas = np.asarray(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.asarray(evaluation.stats[: len(NAMES)], dtype=np.float64)


def matched_poses(
    truth: COCO, results: Sequence[dict[str, Any]], sigmas: Sequence[float], images: Sequence[int]
) -> Any:
    """The evaluation with its matches of poses to people, those of all sizes; arguments as for `coco_numbers`.

    By pycocotools: faster-coco-eval keeps its matches to itself.
    """
    chosen = set(images)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = _plain(truth, [dict(entry) for entry in results if entry["image_id"] in chosen])
        evaluation.params.imgIds = list(images)
        evaluation.params.catIds = sorted(truth.getCatIds())
        evaluation.params.kpt_oks_sigmas = np.asarray(sigmas)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = evaluation.params.areaRng[:1], ["all"]
        evaluation.evaluate()
    return evaluation


def _plain(truth: COCO, results: list[dict[str, Any]]) -> Any:
    return COCOeval(truth, _loaded(truth, results), "keypoints")


def _faster(truth: COCO, results: list[dict[str, Any]]) -> Any:
    import faster_coco_eval

    same = faster_coco_eval.COCO(truth.dataset)
    return faster_coco_eval.COCOeval_faster(same, _loaded(same, results), "keypoints", print_function=_quiet)


def _loaded(truth: Any, results: list[dict[str, Any]]) -> Any:
    """The results as they are evaluated, with the areas that they came with."""
    areas = [entry.get("area") for entry in results]
    found = truth.loadRes(results)
    for entry, area in zip(found.dataset["annotations"], areas, strict=True):
        if area is not None:
            entry["area"] = area
    return found


def _quiet(*_: object) -> None:
    """What faster-coco-eval would log, it says to nobody: the numbers are returned."""
