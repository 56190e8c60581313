"""The loss of DistilPose's regression head, without the teacher that it was published with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .heatmap import per_joint
from .targets import heatmap_targets

_EPS = 1e-3


class TokenRegLoss(nn.Module):
    """Smooth L1 on coordinates, plus a score and a simulated heatmap, both measured on the target's own Gaussian.

    DistilPose is published as distillation from a heatmap model of another network: its tokens, its heatmaps and the
    values of these at the predicted positions are the targets. Here there is no teacher: there is no token term, the
    simulated heatmap (a Gaussian with the predicted centre and deviations) is compared with the target heatmap, and the
    score with the target heatmap's value at the predicted position. So this trains every number of the head, and is not
    the published training.

    Args:
        heatmap_size: Height and width of the heatmaps.
        sigma: Standard deviation of the targets in heatmap pixels.
        score_weight: Weight of the score term.
        heatmap_weight: Weight of the simulated heatmap.

    Source: DistilPose (CVPR 2023), whose weights of the terms are kept.
    """

    def __init__(
        self,
        heatmap_size: tuple[int, int],
        sigma: float = 2.0,
        score_weight: float = 0.01,
        heatmap_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.heatmap_size, self.sigma = heatmap_size, sigma
        self.score_weight, self.heatmap_weight = score_weight, heatmap_weight

    def forward(self, predicted: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            predicted: (B, K, 5): x, y in fractions of the image, score, deviations of x and y in heatmap pixels.
            target: (B, K, 2): x, y in fractions of the image.
            weight: (B, K), one weight a joint; default, 1 for all.

        Returns:
            A scalar.

        Raises:
            ValueError: Shapes that do not belong together.
        """
        if predicted.shape[-1] != 5 or target.shape != (*predicted.shape[:-1], 2):
            raise ValueError(
                f"predictions {tuple(predicted.shape)} and targets {tuple(target.shape)}: (B, K, 5), x, y, score and "
                "two deviations, and (B, K, 2) are expected"
            )
        predicted = predicted.float()
        weights = predicted.new_ones(predicted.shape[:2]) if weight is None else per_joint(weight, predicted)
        place, score, deviation = predicted.split([2, 1, 2], dim=-1)
        coordinates = (F.smooth_l1_loss(place, target, reduction="none") * weights[..., None]).mean()
        height, width = self.heatmap_size
        size = torch.cat([place.new_full((1,), width), place.new_full((1,), height)])
        # the map's value at the prediction says how good it is: what a score should tell
        distance = ((place - target) * size).square().sum(dim=-1)
        value = torch.exp(-distance / (2 * self.sigma**2)).detach() * weights
        scores = F.smooth_l1_loss(score[..., 0], value)
        truth, on_map = heatmap_targets(target * size, weights, self.heatmap_size, self.heatmap_size, self.sigma)
        simulated = _gaussians(place * size, deviation, self.heatmap_size)
        heatmaps = ((simulated - truth).square() * (on_map * weights)[..., None, None]).mean()
        return coordinates + self.score_weight * scores + self.heatmap_weight * heatmaps


def _gaussians(centre: Tensor, deviation: Tensor, size: tuple[int, int]) -> Tensor:
    """Heatmaps (B, K, H, W) with maximum 1 of centres and deviations (B, K, 2) in heatmap pixels."""
    height, width = size
    x = torch.arange(width, dtype=centre.dtype, device=centre.device)
    y = torch.arange(height, dtype=centre.dtype, device=centre.device)
    spread = 2 * (deviation + _EPS).square()
    across = torch.exp(-(x - centre[..., :1]).square() / spread[..., :1])
    down = torch.exp(-(y - centre[..., 1:]).square() / spread[..., 1:])
    return down[..., :, None] * across[..., None, :]
