"""Training losses of the lifting models: MixSTE's, MHFormer's and MotionBERT's.

Poses are (B, F, J, 3), root-relative, in metres as the authors train. ``mask`` (B, F) is true where a frame counts; a
difference between two frames counts where both do. Without a mask all count, as in the authors' code. Where several
processes share a batch, a `SharedMask` makes the mean of their losses the loss of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

JOINT_WEIGHTS = (1.0, 1.0, 2.5, 2.5, 1.0, 2.5, 2.5, 1.0, 1.0, 1.0, 1.5, 1.5, 4.0, 4.0, 1.5, 4.0, 4.0)
"""MixSTE's weights of Human3.6M's 17 joints: limbs count more than the trunk."""


class SharedMask(NamedTuple):
    """A mask of this process's share of a batch, with what counts in the share that an average process has."""

    inside: Tensor
    """(B, F), true where a frame counts."""
    counts: Tensor
    """(2,): frames, and steps from one to the next, that count; the mean over the processes."""

    @classmethod
    def of(cls, inside: Tensor) -> SharedMask:
        """The mask, after all processes of the group told each other what counts in theirs; all must call it."""
        counts = torch.stack([inside.sum(), _both(inside).sum()]).float()
        dist.all_reduce(counts)
        return cls(inside, counts.clamp_min(1) / dist.get_world_size())


Mask = Tensor | SharedMask | None
PoseLoss = Callable[[Tensor, Tensor, Mask], Tensor]


def weighted_mpjpe(predicted: Tensor, target: Tensor, weights: Tensor, mask: Mask = None) -> Tensor:
    """Mean over joints of ``w * ||p - t||``; a scalar in the unit of the poses.

    Args:
        predicted: (B, F, J, 3).
        target: (B, F, J, 3).
        weights: (J,).
        mask: (B, F).

    Source: MixSTE (CVPR 2022), its weighted position loss.
    """
    return _mean((weights * (predicted - target).norm(dim=-1)).mean(dim=-1), mask)


def temporal_consistency(predicted: Tensor, weights: Tensor, mask: Mask = None) -> Tensor:
    """Mean of ``w * (p[t+1] - p[t])^2`` over frames, joints and axes: a prior for smooth motion, blind to the target.

    Source: MixSTE (CVPR 2022), its temporal consistency loss.
    """
    steps = predicted.diff(dim=1).square()
    return _mean((weights[:, None] * steps).mean(dim=(-2, -1)), mask, steps=True)


def mean_velocity(predicted: Tensor, target: Tensor, mask: Mask = None) -> Tensor:
    """Mean distance between the steps of prediction and target from frame to frame.

    Source: Pavllo et al., VideoPose3D (CVPR 2019); MixSTE's and MotionBERT's velocity loss.
    """
    return _mean((predicted.diff(dim=1) - target.diff(dim=1)).norm(dim=-1).mean(dim=-1), mask, steps=True)


def mpjpe_loss(predicted: Tensor, target: Tensor, mask: Mask = None) -> Tensor:
    """Mean distance over joints and frames: MHFormer's loss."""
    return _mean((predicted - target).norm(dim=-1).mean(dim=-1), mask)


def n_mpjpe_loss(predicted: Tensor, target: Tensor, mask: Mask = None) -> Tensor:
    """Mean distance after the best scaling of each frame's prediction.

    Source: Rhodin et al. (CVPR 2018); MotionBERT's scale loss.
    """
    product, square = (predicted * target).sum(dim=(-2, -1)), predicted.square().sum(dim=(-2, -1))
    scale = product / square.clamp_min(1e-12)  # an all-zero prediction stays what it is
    return mpjpe_loss(scale[..., None, None] * predicted, target, mask)


def mixste_total(predicted: Tensor, target: Tensor, mask: Mask = None, weights: Tensor | None = None) -> Tensor:
    """MixSTE's and HoT's loss: weighted MPJPE + 0.5 x temporal consistency + 2 x velocity, for 17 joints.

    ``weights``: `JOINT_WEIGHTS` as a tensor where there is one already.

    Raises:
        ValueError: Another number of joints, for which there are no weights.
    """
    if predicted.shape[-2] != len(JOINT_WEIGHTS):
        raise ValueError(
            f"MixSTE's loss has weights for Human3.6M's 17 joints, the poses have {predicted.shape[-2]}: "
            "use the loss 'mpjpe' or 'motionbert'"
        )
    if weights is None:
        weights = torch.tensor(JOINT_WEIGHTS, dtype=predicted.dtype, device=predicted.device)
    position = weighted_mpjpe(predicted, target, weights, mask)
    if predicted.shape[1] < 2:
        return position
    smoothness = temporal_consistency(predicted, weights, mask)
    return position + 0.5 * smoothness + 2.0 * mean_velocity(predicted, target, mask)


class MixSTELoss(nn.Module):
    """:func:`mixste_total` with its weights on the device, where a step in a CUDA graph cannot bring them."""

    weights: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(JOINT_WEIGHTS), persistent=False)

    def forward(self, predicted: Tensor, target: Tensor, mask: Mask = None) -> Tensor:
        """The loss of poses (B, F, 17, 3)."""
        return mixste_total(predicted, target, mask, self.weights.to(predicted.dtype))


def motionbert_total(predicted: Tensor, target: Tensor, mask: Mask = None) -> Tensor:
    """MotionBERT's loss: MPJPE + 0.5 x N-MPJPE + 20 x velocity.

    Source: MotionBERT (ICCV 2023), its configs for 3D pose.
    """
    position = mpjpe_loss(predicted, target, mask) + 0.5 * n_mpjpe_loss(predicted, target, mask)
    return position + 20.0 * mean_velocity(predicted, target, mask) if predicted.shape[1] > 1 else position


LOSSES: dict[str, PoseLoss] = {"mixste": mixste_total, "mpjpe": mpjpe_loss, "motionbert": motionbert_total}


def _both(mask: Tensor) -> Tensor:
    return mask[:, 1:] & mask[:, :-1]


def _mean(values: Tensor, mask: Mask, steps: bool = False) -> Tensor:
    """The mean of one value a frame, or a step from one to the next, over those that count."""
    if mask is None:
        return values.mean()
    inside = mask.inside if isinstance(mask, SharedMask) else mask
    weight = (_both(inside) if steps else inside).to(values.dtype)
    count = mask.counts[int(steps)] if isinstance(mask, SharedMask) else weight.sum().clamp_min(1)
    return (values * weight).sum() / count
