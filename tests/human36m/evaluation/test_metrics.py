"""Losses and metrics against golden values and by what defines them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cycledistill.integrations.human36m.evaluation.metrics import (
    MotionScores,
    auc,
    mpjpe,
    n_mpjpe,
    p_mpjpe,
    pck,
    temporal_std,
    velocity_error,
)
from cycledistill.integrations.human36m.training import losses

GOLDEN = Path(__file__).parents[2] / "golden" / "metrics.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def test_golden_metrics(golden: dict[str, Tensor]) -> None:
    predicted, target = golden["pred"], golden["target"]
    assert mpjpe(predicted, target).mean().item() == pytest.approx(golden["mpjpe"].item(), rel=1e-6)
    assert velocity_error(predicted, target).mean().item() == pytest.approx(golden["mean_velocity"].item(), rel=1e-6)
    found = p_mpjpe(predicted, target).reshape(-1)
    torch.testing.assert_close(found, golden["p_mpjpe_per_frame"], rtol=1e-9, atol=1e-9)


def test_golden_losses(golden: dict[str, Tensor]) -> None:
    predicted, target, weights = golden["pred"], golden["target"], golden["w_joint"]
    assert tuple(weights.tolist()) == losses.JOINT_WEIGHTS
    for name, found in {
        "mpjpe": losses.mpjpe_loss(predicted, target),
        "weighted_mpjpe": losses.weighted_mpjpe(predicted, target, weights),
        "temporal_consistency": losses.temporal_consistency(predicted, weights),
        "mean_velocity": losses.mean_velocity(predicted, target),
        "mixste_total": losses.mixste_total(predicted, target),
    }.items():
        assert found.item() == pytest.approx(golden[name].item(), rel=2e-6), name


def rotation(draw: torch.Generator) -> Tensor:
    turned, _ = torch.linalg.qr(torch.randn(3, 3, generator=draw, dtype=torch.float64))
    return turned * torch.linalg.det(turned)


def test_what_each_metric_forgives() -> None:
    draw = torch.Generator().manual_seed(0)
    target = torch.randn(4, 17, 3, generator=draw, dtype=torch.float64)
    moved = 0.3 * target @ rotation(draw) + torch.tensor([1.0, 2.0, 3.0])
    assert p_mpjpe(moved, target).max() < 1e-12
    assert n_mpjpe(0.3 * target, target).max() < 1e-12
    assert n_mpjpe(moved, target).min() > 0.1
    assert p_mpjpe(-target, target).min() > 0.1, "a mirror image is no rotation"
    assert velocity_error(target + 5, target).max() < 1e-12


def test_degenerate_predictions_are_finite() -> None:
    target = torch.randn(2, 17, 3)
    for metric in (p_mpjpe, n_mpjpe):
        assert metric(torch.zeros(2, 17, 3), target).isfinite().all()
    zero = torch.zeros(1, 3, 17, 3, requires_grad=True)
    losses.n_mpjpe_loss(zero, torch.randn(1, 3, 17, 3)).backward()
    assert zero.grad is not None and zero.grad.isfinite().all()


def test_pck_and_auc_by_hand() -> None:
    target = torch.zeros(1, 4, 3)
    predicted = torch.zeros(1, 4, 3)
    predicted[0, :, 0] = torch.tensor([0.0, 74.0, 149.0, 151.0])
    assert pck(predicted, target).item() == 0.75
    # below 5, 10, ... 150: 30 of the 31 thresholds; 75 ... 150: 16; 150: 1; none
    assert auc(predicted, target).item() == pytest.approx((30 + 16 + 1) / 31 / 4)


def test_temporal_std_sees_what_mpjpe_does_not() -> None:
    time = torch.arange(50) / 50 * 2 * math.pi
    target = torch.zeros(1, 50, 17, 3, dtype=torch.float64)
    target[..., 5, 0] = 0.1 * time.sin()
    static, moving = MotionScores(), MotionScores()
    static.add("waving", target.mean(dim=1, keepdim=True).expand_as(target), target)
    moving.add("waving", 0.9 * target, target)
    assert static.summary()["temporal_std_ratio_frame_mean"] == 0
    assert moving.summary()["temporal_std_ratio_frame_mean"] == pytest.approx(0.9, abs=1e-5)
    assert temporal_std(target).item() == pytest.approx(0.1 / math.sqrt(2) / 51)


def test_frame_mean_is_not_action_mean() -> None:
    scores = MotionScores()
    off = torch.zeros(1, 30, 17, 3)
    off[..., 1:, 0] = 0.017  # metres, on 16 of 17 joints
    scores.add("long", off, torch.zeros_like(off))
    scores.add("short", 2 * off[:, :10], torch.zeros_like(off)[:, :10])
    found: dict[str, Any] = scores.summary()
    assert found["mpjpe_frame_mean"] == pytest.approx((30 * 16 + 10 * 32) / 40)
    assert found["mpjpe_action_mean"] == pytest.approx(24)
    assert found["actions"]["short"]["mpjpe"] == pytest.approx(32)
    assert found["frames"] == 40


def test_the_root_is_set_to_zero_and_inputs_are_left() -> None:
    predicted, target = torch.zeros(1, 5, 17, 3), torch.zeros(1, 5, 17, 3)
    predicted[..., 0, :] = 7
    scores = MotionScores()
    scores.add("a", predicted, target)
    assert scores.summary()["mpjpe_frame_mean"] == 0
    assert predicted[0, 0, 0, 0] == 7


def test_a_mask_leaves_frames_out() -> None:
    torch.manual_seed(1)
    predicted, target = torch.randn(2, 9, 17, 3), torch.randn(2, 9, 17, 3)
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[:, 2:7] = True
    for loss in losses.LOSSES.values():
        inside = loss(predicted[:, 2:7], target[:, 2:7], None)
        torch.testing.assert_close(loss(predicted, target, mask), inside)
        torch.testing.assert_close(loss(predicted, target, torch.ones_like(mask)), loss(predicted, target, None))


def test_motionbert_total_is_its_three_terms() -> None:
    predicted, target = torch.randn(2, 5, 17, 3), torch.randn(2, 5, 17, 3)
    expected = (
        mpjpe(predicted, target).mean()
        + 0.5 * n_mpjpe(predicted, target).mean()
        + 20 * velocity_error(predicted, target).mean()
    )
    torch.testing.assert_close(losses.motionbert_total(predicted, target), expected)
    assert losses.motionbert_total(predicted[:, :1], target[:, :1]).isfinite()


def test_a_perfect_prediction_has_the_originals_auc() -> None:
    target = torch.randn(2, 17, 3)
    assert auc(target, target).tolist() == pytest.approx([30 / 31] * 2)


def test_what_single_frames_do_not_have_is_left_out() -> None:
    one, many = torch.rand(3, 1, 17, 3), torch.rand(1, 8, 17, 3)
    scores = MotionScores()
    scores.add("still", one, one + 0.1)
    alone: dict[str, Any] = scores.summary()
    for name in ("velocity", "temporal_std_ratio"):
        assert alone[f"{name}_frame_mean"] is alone[f"{name}_action_mean"] is alone["actions"]["still"][name] is None
    scores.add("moving", many, 0.5 * many)
    both: dict[str, Any] = scores.summary()
    json.dumps(both, allow_nan=False)
    assert both["velocity_action_mean"] == both["actions"]["moving"]["velocity"] > 0, "of the actions that have one"
    assert both["temporal_std_ratio_action_mean"] == pytest.approx(2)
    pytest.importorskip("accelerate")
    from cycledistill.integrations.human36m.training.session import describe

    assert "no velocity" in describe(alone) and "no temporal std" in describe(alone)
    assert "velocity" in describe(both) and "no velocity" not in describe(both)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_poses_that_are_no_numbers(bad: float) -> None:
    good = torch.rand(2, 5, 17, 3)
    broken = good.clone()
    broken[1, 3:, 2, 0] = bad
    with pytest.raises(ValueError, match="predicted poses of 2 of 10 frames are NaN or infinite"):
        p_mpjpe(broken, good)
    scores = MotionScores()
    with pytest.raises(ValueError, match="Eating: target poses of 2 of 10 frames are NaN or infinite"):
        scores.add("Eating", good, broken)
    assert not scores.actions, "nothing is counted by half"


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"Eating: .*two alike, \(windows, frames, joints, 3\)"):
        MotionScores().add("Eating", torch.zeros(2, 17, 3), torch.zeros(2, 17, 3))
    with pytest.raises(ValueError, match=r"\(2, 17, 3\) and \(2, 16, 3\)"):
        mpjpe(torch.zeros(2, 17, 3), torch.zeros(2, 16, 3))
    with pytest.raises(ValueError, match="17 joints, the poses have 16"):
        losses.mixste_total(torch.zeros(1, 2, 16, 3), torch.zeros(1, 2, 16, 3))
    with pytest.raises(ValueError, match="nothing was measured"):
        MotionScores().summary()


def test_the_interval_is_over_sequences_as_scipy_draws_them() -> None:
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(2)
    lengths, errors = random.integers(5, 30, 24), random.gamma(4, 0.01, 24)
    scores, fewer = MotionScores(), MotionScores()
    for number, (length, error) in enumerate(zip(lengths.tolist(), errors.tolist(), strict=True)):
        off = torch.zeros(1, length, 17, 3)
        off[..., 1:, 0] = error
        for each in (scores, fewer) if number < 9 else (scores,):
            each.add("a", off, torch.zeros_like(off))
    found: dict[str, Any] = scores.summary()
    theirs = stats.bootstrap(
        (lengths, 1000 * errors * 16 / 17), lambda n, mm: (n * mm).sum() / n.sum(), paired=True, vectorized=False,
        method="percentile", n_resamples=1000, rng=random,
    ).confidence_interval  # fmt: skip
    width = theirs.high - theirs.low
    assert found["mpjpe_frame_mean_interval"] == pytest.approx([theirs.low, theirs.high], abs=0.12 * width)
    assert found["sequences"] == found["recordings"] == 24
    assert fewer.summary()["mpjpe_frame_mean_interval"] is None, "9 recordings tell too little of others"


def test_views_of_one_recording_do_not_narrow_the_interval() -> None:
    errors = np.random.default_rng(3).gamma(4, 0.01, 12).tolist()
    one, four, parts = MotionScores(), MotionScores(), [MotionScores(), MotionScores()]
    for number, error in enumerate(errors):
        off = torch.zeros(1, 10, 17, 3)
        off[..., 1:, 0] = error
        one.add("a", off, torch.zeros_like(off), recording=f"{number:02d}")
        for view in range(4):
            for scores in (four, parts[view % 2]):  # views of a recording are measured on different ranks
                scores.add("a", off, torch.zeros_like(off), recording=f"{number:02d}")
    expected, found = one.summary(), four.summary()
    assert found["mpjpe_frame_mean_interval"] == expected["mpjpe_frame_mean_interval"]
    assert (found["sequences"], found["recordings"]) == (48, 12)
    assert MotionScores.joined(parts).summary() == found
