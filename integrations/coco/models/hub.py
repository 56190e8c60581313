"""Pose models on the Hugging Face hub: what their ``config.json`` and their model card say."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, ClassVar, TypeVar

import torch

from cycledistill.plugin.install import handle_of
from cycledistill.recipes.hub.card import ModelFacts
from cycledistill.recipes.hub.config import cycles_of, read_model_fields
from cycledistill.recipes.hub.model import HubModel

from .config import MEAN, STD, TokenPoseConfig
from .plugins import STACK, PoseModelConfig, add_plugins

M = TypeVar("M", bound="PoseHubModel")


class PoseHubModel(HubModel, pipeline_tag="keypoint-detection", tags=["human-pose-estimation"]):
    """A pose model that the hub holds; `TokenPose` is one.

    ``config.json`` has the fields of `PoseModelConfig`, those that apply, and the name in the registry.
    """

    hub_options: ClassVar[tuple[str, ...]] = ("cycles", "distill", "prune_layers", "keep")
    config: TokenPoseConfig
    joints: dict[str, Any] | None = None
    """The joints that it predicts, as plain data that travels with its weights; `joints_of` reads them."""

    def hub_config(self) -> dict[str, Any]:
        """The network, its cycles and its pruning, as plain data."""
        pruning = handle_of(self, "pruning")
        pruned = {} if pruning is None else {"prune_layers": pruning.layers, "keep": pruning.keep}
        joints = {} if self.joints is None else {"joints": self.joints}
        return {"network": asdict(self.config), **cycles_of(self), **pruned, **joints}

    def export_metadata(self) -> dict[str, str]:
        """What an exported file says of the model: the joints, and what images it takes, each as JSON."""
        told = {"input_size": self.config.image_size, "input_channels": "RGB", "mean": MEAN, "std": STD}
        joints = {} if self.joints is None else {"joints": self.joints}
        words = {name: json.dumps(value) for name, value in (joints | told).items()}
        return words if self.name is None else {"model": self.name, **words}

    @classmethod
    def from_hub_config(cls: type[M], config: dict[str, Any]) -> M:
        """The model of a config, with fresh weights.

        Raises:
            ValueError: A field that is missing or unknown, or a value out of its range.
        """
        config = dict(config)
        joints = config.pop("joints", None)
        whole = read_model_fields(PoseModelConfig, TokenPoseConfig, config)
        model = cls(whole.network)
        model.joints = checked_joints(joints, whole.network.num_keypoints)
        return add_plugins(model, whole)

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


def checked_joints(joints: Any, number: int) -> dict[str, Any] | None:
    """Joints that were stored with weights, or nothing; what they say in detail is checked where they are used.

    Raises:
        ValueError: No mapping with as many names as the model has keypoints.
    """
    if joints is None:
        return None
    names = joints.get("names") if isinstance(joints, dict) else None
    if not isinstance(names, list) or len(names) != number:
        raise ValueError(f"joints={joints!r:.80}: a mapping with the names of {number} joints is expected")
    return joints
