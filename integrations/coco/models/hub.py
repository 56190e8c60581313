"""Pose models on the Hugging Face hub: what their ``config.json`` and their model card say."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar, TypeVar

import torch

from cycledistill.plugin.install import handle_of
from cycledistill.recipes.hub.card import ModelFacts
from cycledistill.recipes.hub.config import cycles_of, read_model_fields
from cycledistill.recipes.hub.model import HubModel

from .config import TokenPoseConfig
from .plugins import STACK, PoseModelConfig, add_plugins

M = TypeVar("M", bound="PoseHubModel")


class PoseHubModel(HubModel, pipeline_tag="keypoint-detection", tags=["human-pose-estimation"]):
    """A pose model that the hub holds; `TokenPose` is one.

    ``config.json`` has the fields of `PoseModelConfig`, those that apply, and the name in the registry.
    """

    hub_options: ClassVar[tuple[str, ...]] = ("cycles", "distill", "prune_layers", "keep")
    config: TokenPoseConfig

    def hub_config(self) -> dict[str, Any]:
        """The network, its cycles and its pruning, as plain data."""
        pruning = handle_of(self, "pruning")
        pruned = {} if pruning is None else {"prune_layers": pruning.layers, "keep": pruning.keep}
        return {"network": asdict(self.config), **cycles_of(self), **pruned}

    @classmethod
    def from_hub_config(cls: type[M], config: dict[str, Any]) -> M:
        """The model of a config, with fresh weights.

        Raises:
            ValueError: A field that is missing or unknown, or a value out of its range.
        """
        whole = read_model_fields(PoseModelConfig, TokenPoseConfig, config)
        return add_plugins(cls(whole.network), whole)

    def hub_facts(self) -> ModelFacts:
        """What the model card says of the model itself."""
        config = self.config
        height, width = config.image_size
        rows, columns = config.heatmap_size
        gives = {
            "heatmap": f"heatmaps (B, {config.num_keypoints}, {rows}, {columns})",
            "token_reg": f"(B, {config.num_keypoints}, 5): coordinates, score and deviations",
            "rle": f"(B, {config.num_keypoints}, 4): coordinates and deviations",
        }[config.head]
        return ModelFacts(
            module="cycledistill.integrations.coco",
            loader=type(self).__name__,
            does=(
                f"pictures of one person, (B, 3, {height}, {width}), RGB, normalised by ImageNet's mean and deviation, "
                f"and gives {gives}"
            ),
            inputs=torch.zeros(1, 3, height, width, device="meta"),
            example=f"one picture of {height} x {width}",
            stack=STACK,
        )
