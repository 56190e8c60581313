"""Losses on heatmaps."""

from __future__ import annotations

from torch import Tensor, nn


class HeatmapLoss(nn.Module):
    """Mean of the weighted squared differences of two sets of heatmaps: ``mean((P - T)^2 * w)``, no factor 1/2.

    The mean runs over every pixel of every map, those of weight 0 included, so the loss of a batch does not depend on
    how many of its joints are labelled.

    Example:
        >>> criterion = CycleLoss(HeatmapLoss())
        >>> loss = criterion(model(images), *heatmap_targets(joints, visible, (256, 192), (64, 48)))

    Source: Xiao et al., "Simple Baselines" (ECCV 2018)
    """

    def forward(self, predicted: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            predicted: (B, K, H, W).
            target: (B, K, H, W).
            weight: (B, K), one weight a joint; default, 1 for all.

        Returns:
            A scalar.

        Raises:
            ValueError: Shapes that do not belong together.
        """
        if predicted.shape != target.shape:
            raise ValueError(
                f"predicted heatmaps {tuple(predicted.shape)} and target {tuple(target.shape)} differ in shape: "
                "make the targets for the model's heatmap size and its number of keypoints"
            )
        squared = (predicted - target).square()
        return squared.mean() if weight is None else (squared * per_joint(weight, predicted)[..., None, None]).mean()


def per_joint(weight: Tensor, predicted: Tensor) -> Tensor:
    """A weight a joint as (B, K), from (B, K) or (B, K, 1).

    Raises:
        ValueError: Another shape than the prediction's first two dimensions.
    """
    weight = weight.squeeze(-1) if weight.ndim == 3 and weight.shape[-1] == 1 else weight
    if weight.shape != predicted.shape[:2]:
        raise ValueError(
            f"target weights of shape {tuple(weight.shape)}: one a joint, {tuple(predicted.shape[:2])}, is expected"
        )
    return weight
