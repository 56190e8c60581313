"""The evaluation against published anchors, against faster-coco-eval, and against what must not change it."""

from __future__ import annotations

import copy
import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cycledistill.integrations.coco.data.joints import COCO, CROWDPOSE, JointSet
from cycledistill.integrations.coco.evaluation import oks as oks_module
from cycledistill.integrations.coco.evaluation.average_precision import (
    PosePrediction,
    evaluate_poses,
    pose_score,
    to_results,
)
from cycledistill.integrations.coco.evaluation.ground_truth import load_ground_truth
from cycledistill.integrations.coco.evaluation.oks import oks, oks_nms
from cycledistill.integrations.coco.evaluation.protocol import coco_numbers

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "keypoint_gt"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the keypoint ground truth is not beside this checkout")

COCO_ANCHOR = {
    "AP": 0.5048844884488449, "AP50": 0.7227722772277227, "AP75": 0.6336633663366337, "APm": 0.46633663366336636,
    "APl": 0.7504950495049505, "AR": 0.5181818181818182, "AR50": 0.7272727272727273, "AR75": 0.6363636363636364,
    "ARm": 0.4666666666666666, "ARl": 0.75,
}  # fmt: skip
CROWD_ANCHOR = {
    "AP": 0.7877215935879303, "AP50": 0.9881188118811886, "AP75": 0.7314356435643564, "AR": 0.8222222222222223,
    "AR50": 1.0, "AR75": 0.7777777777777778,
}  # fmt: skip


def read(name: str) -> Any:
    path = DATA / name
    return json.loads(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())


def scene(joints: JointSet, images: int = 3, persons: int = 4, seed: int = 0) -> dict[str, Any]:
    """Annotations of persons far apart, all joints labelled."""
    rng = np.random.default_rng(seed)
    annotations = []
    for index in range(images * persons):
        corner = np.array([300.0 * (index % persons), 50.0])
        points = corner + rng.uniform(10, 190, (len(joints), 2))
        flat = np.concatenate([points, np.full((len(joints), 1), 2.0)], 1).ravel().tolist()
        box = [*corner, 200.0, 200.0]
        annotations.append(
            {"id": index + 1, "image_id": index // persons + 1, "category_id": 1, "keypoints": flat, "bbox": box}
        )
    return {"images": [{"id": i + 1} for i in range(images)], "annotations": annotations}


def as_predictions(annotations: dict[str, Any], noise: float = 0.0) -> list[PosePrediction]:
    rng = np.random.default_rng(1)
    predictions = []
    for person in annotations["annotations"]:
        points = np.array(person["keypoints"], dtype=np.float32).reshape(-1, 3)
        points[:, :2] += noise * rng.standard_normal((len(points), 2)).astype(np.float32)
        points[:, 2] = rng.uniform(0.5, 1.0, len(points))
        area = person["bbox"][2] * person["bbox"][3]
        predictions.append(PosePrediction(person["image_id"], points, float(rng.uniform(0.5, 1)), area))
    return predictions


@needs_data
def test_the_published_coco_anchor_to_all_digits() -> None:
    truth = load_ground_truth(read("faster_coco_eval_keypoints_gt.json"), COCO)
    got = evaluate_poses(truth, read("faster_coco_eval_keypoints_results.json"), COCO)
    assert got == pytest.approx(COCO_ANCHOR, rel=1e-12)


@needs_data
def test_the_published_crowdpose_anchor_to_all_digits() -> None:
    truth = load_ground_truth(read("xtcocoapi_crowdpose_gt.json"), CROWDPOSE)
    got = evaluate_poses(truth, read("xtcocoapi_crowdpose_results.json"), CROWDPOSE)
    assert {name: got[name] for name in CROWD_ANCHOR} == pytest.approx(CROWD_ANCHOR, rel=1e-12)
    levels = [round(got[f"AP{level}"], 4) for level in ("easy", "medium", "hard")]
    assert levels == [1.0, 0.9802, 0.4116]


@needs_data
def test_coco_ground_truth_as_prediction_is_perfect_without_nms() -> None:
    annotations = read("coco_val2017_538.json.gz")
    labelled = [a for a in annotations["annotations"] if a["num_keypoints"] > 0]
    truth = load_ground_truth(annotations, COCO)
    results = to_results(as_predictions({"annotations": labelled}), COCO, nms_threshold=None)
    assert evaluate_poses(truth, results, COCO)["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize("joints", [COCO, CROWDPOSE])
def test_truth_is_perfect_and_noise_is_not(joints: JointSet) -> None:
    annotations = scene(joints)
    truth = load_ground_truth(annotations, joints)
    perfect = evaluate_poses(truth, to_results(as_predictions(annotations), joints), joints)
    noisy = evaluate_poses(truth, to_results(as_predictions(annotations, noise=12.0), joints), joints)
    assert perfect["AP"] == pytest.approx(1.0)
    assert 0.0 < noisy["AP"] < 0.9


def test_agrees_with_faster_coco_eval() -> None:
    faster = pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed")
    annotations = scene(COCO, images=6)
    truth = load_ground_truth(annotations, COCO)
    results = to_results(as_predictions(annotations, noise=12.0), COCO)
    other = faster.COCO(copy.deepcopy(truth.dataset))
    evaluation = faster.COCOeval_faster(other, other.loadRes(copy.deepcopy(results)), "keypoints", print_function=str)
    evaluation.params.kpt_oks_sigmas = np.array(COCO.sigmas)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert list(evaluate_poses(truth, results, COCO).values()) == pytest.approx(list(evaluation.stats[:10]), abs=1e-9)


@pytest.mark.parametrize("joints", [COCO, CROWDPOSE])
def test_both_evaluators_give_the_same_numbers(joints: JointSet) -> None:
    """With ignored persons, persons of several sizes and categories, ties of scores, and pictures without results."""
    pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed")
    annotations = scene(joints, images=8)
    rng = np.random.default_rng(4)
    for index, person in enumerate(annotations["annotations"]):
        person["area"], person["category_id"] = float(rng.choice([500.0, 3000.0, 30000.0])), 1 + index % 2
        person["iscrowd"] = int(index % 7 == 0)
        person["keypoints"][2::3] = rng.integers(0, 3, len(joints)).tolist() if index % 5 else [0] * len(joints)
    truth = load_ground_truth(annotations, joints)
    results = to_results(as_predictions(annotations, noise=12.0), joints, nms_threshold=None)
    for number, result in enumerate(results):
        result["score"] = round(result["score"], 1)
        result["category_id"] = 1 + number % 2
    results = [result for result in results if result["image_id"] != 3]
    images = list(truth.image_numbers.values())
    for index in (truth, truth.split):
        ours = [{**result, "category_id": 1} if index is truth else result for result in results]
        plain, faster = (coco_numbers(index, ours, joints.sigmas, images, faster=flag) for flag in (False, True))
        assert 0.02 < plain[0] < 0.95
        np.testing.assert_allclose(faster, plain, rtol=0, atol=1e-12)


def test_the_order_of_detections_does_not_matter() -> None:
    annotations = scene(COCO)
    truth = load_ground_truth(annotations, COCO)
    predictions = as_predictions(annotations, noise=12.0)
    want = evaluate_poses(truth, to_results(predictions, COCO), COCO)
    random.Random(3).shuffle(predictions)
    assert evaluate_poses(truth, to_results(predictions, COCO), COCO) == want


def test_duplicates_are_suppressed() -> None:
    annotations = scene(COCO)
    predictions = as_predictions(annotations, noise=12.0)
    truth = load_ground_truth(annotations, COCO)
    once, twice = to_results(predictions, COCO), to_results([*predictions, *predictions], COCO)
    assert len(twice) == len(once)
    assert evaluate_poses(truth, twice, COCO) == evaluate_poses(truth, once, COCO)


def test_no_detections_score_zero() -> None:
    truth = load_ground_truth(scene(COCO), COCO)
    assert set(evaluate_poses(truth, [], COCO).values()) == {0.0}


def test_oks_by_hand() -> None:
    pose = np.zeros((17, 2))
    moved = np.zeros((1, 17, 2))
    moved[0, 0, 0] = 3.0
    want = (16 + np.exp(-(9.0 / (2 * 0.026) ** 2) / 400.0 / 2)) / 17
    areas = np.array([300.0, 500.0])
    assert oks(pose[None], np.stack([pose, *moved]), areas[:1], areas, COCO.sigmas).tolist() == [
        [1.0, pytest.approx(want)]
    ]


def test_nms_keeps_the_better_of_two_and_a_stranger() -> None:
    poses = np.zeros((3, 17, 2))
    poses[2] += 500.0
    assert oks_nms(poses, np.array([0.2, 0.9, 0.5]), np.full(3, 1e4), COCO.sigmas) == [1, 2]


def nms_by_hand(poses: Any, scores: Any, areas: Any, threshold: float) -> list[int]:
    """One pose after the other, each against those still there."""
    order = sorted(range(len(poses)), key=lambda index: (-scores[index], *poses[index].ravel()))
    kept = []
    while order:
        best = order.pop(0)
        kept.append(best)
        left = []
        for index in order:
            squared = ((poses[index].astype(np.float64) - poses[best]) ** 2).sum(-1)
            area = (float(areas[best]) + float(areas[index])) / 2 + np.spacing(1)
            near = np.exp(-squared / (2 * np.asarray(COCO.sigmas)) ** 2 / area / 2).mean()
            if near <= threshold:
                left.append(index)
        order = left
    return kept


@pytest.mark.parametrize("pairs", [oks_module._PAIRS, 17, 17 * 50], ids=["one matrix", "row by row", "blocks"])
def test_nms_keeps_what_a_loop_keeps(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oks_module, "_PAIRS", pairs)
    random_numbers = np.random.default_rng(0)
    dropped = 0
    for number in (0, 1, 2, 5, 23, 23, 23):
        true = random_numbers.uniform(0, 640, (max(1, number // 3), 17, 2))
        poses = true[random_numbers.integers(len(true), size=number)] + random_numbers.normal(0, 2, (number, 17, 2))
        poses = poses.astype(np.float32)
        poses[number // 2 :: 4] = poses[: len(poses[number // 2 :: 4])]  # some are one pose twice
        scores = random_numbers.integers(0, 3, number) / 2  # ties
        areas = random_numbers.uniform(5e3, 2e4, number).astype(np.float32)
        for threshold in (0.5, 0.9):
            want = nms_by_hand(poses, scores, areas, threshold)
            assert oks_nms(poses, scores, areas, COCO.sigmas, threshold) == want
            dropped += number - len(want)
    assert dropped > 20


def test_score_counts_only_joints_above_the_threshold() -> None:
    assert pose_score(np.array([0.1, 0.4, 0.8]), 0.5) == pytest.approx(0.3)
    assert pose_score(np.array([0.1, 0.2]), 0.5) == 0.0


def broken(change: Any) -> Any:
    annotations = scene(COCO)
    change(annotations)
    return annotations


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: load_ground_truth({"images": []}, COCO), "annotations"),
        (lambda: load_ground_truth(scene(CROWDPOSE), COCO), "51 are expected"),
        (
            lambda: load_ground_truth(broken(lambda a: a["annotations"][0].update(keypoints=[1.0] * 34)), COCO),
            "34 keypoint numbers: 51 are expected .*are they x and y without the visibility",
        ),
        (
            lambda: evaluate_poses(
                load_ground_truth(scene(COCO), COCO), to_results(as_predictions(scene(COCO, images=5)), COCO), COCO
            ),
            "2 images with results are not in the annotations",
        ),
        (lambda: to_results(as_predictions(scene(CROWDPOSE)), COCO), r"\(17, 3\) is expected"),
    ],
)
def test_bad_input_is_named(call: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()
