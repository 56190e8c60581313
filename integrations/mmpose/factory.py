"""Pose models from whichever installed package offers them, so that there is one implementation of each."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from torch import nn

GROUP = "cycledistill.pose_models"
"""Entry points that name a function ``(name, num_keypoints, **options) -> model``; models have ``take_backbone()``."""


def create_parts(name: str, num_keypoints: int, **options: Any) -> tuple[nn.Module, nn.Module]:
    """A pose model in the two parts that mmpose has.

    Args:
        name: What the model is called, such as ``"sdpose_t"``.
        num_keypoints: Keypoints to predict.
        **options: Of the model, such as ``image_size`` (height, width).

    Returns:
        The backbone, images (B, 3, H, W) to features, and the rest, features to heatmaps; neither is wrapped.

    Raises:
        ImportError: No package offers pose models.
        ValueError: An unknown name or option, a model without a backbone, or one that prunes.
    """
    found = sorted(entry_points(group=GROUP), key=lambda each: each.name)
    if not found:
        raise ImportError(
            f"no installed package offers pose models (entry points of the group {GROUP!r}): install cycledistill "
            "itself into this environment, `pip install --no-deps -e .` in a clone; a path to it is not enough"
        )
    model = found[0].load()(name, num_keypoints, cycles=None, **options)
    return model.take_backbone(), model
