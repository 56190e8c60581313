"""Multi-view models on the Hugging Face hub, and the pruning that their config says."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn

from cycledistill.plugin.install import handle_of
from cycledistill.prune.wrap import wrap_pruning
from cycledistill.recipes.hub.card import ModelFacts
from cycledistill.recipes.hub.config import read_fields
from cycledistill.recipes.hub.model import HubModel

from .config import MultiViewConfig
from .crops import MEAN, STD

M = TypeVar("M", bound="MultiViewHubModel")
Model = TypeVar("Model", bound=nn.Module)

_VIEWS = 4
"""Cameras of Human3.6M: how many views the costs are counted for."""


class MultiViewHubModel(HubModel, pipeline_tag="keypoint-detection", tags=["human-pose-estimation", "multi-view"]):
    """A multi-view model that the hub holds; ``config.json`` has the fields of `MultiViewConfig`."""

    hub_options: ClassVar[tuple[str, ...]] = ("prune_layers", "keep")
    config: MultiViewConfig

    def hub_config(self) -> dict[str, Any]:
        """The network and its pruning as they are now, as plain data."""
        pruning = handle_of(self, "pruning")
        now = {"prune_layers": ()} if pruning is None else {"prune_layers": pruning.layers, "keep": pruning.keep}
        return asdict(self.config) | now

    def export_metadata(self) -> dict[str, str]:
        """What an exported file says of the model: what views it takes, each as JSON."""
        told: dict[str, Any] = {"input_size": self.config.image_size}
        if self.config.backbone != "features":
            told |= {"input_channels": "RGB", "mean": MEAN, "std": STD}
        return {name: json.dumps(value) for name, value in told.items()}

    @classmethod
    def from_hub_config(cls: type[M], config: dict[str, Any]) -> M:
        """The model of a config, with fresh weights.

        Raises:
            ValueError: An unknown field, or a value out of its range.
        """
        read = read_fields(MultiViewConfig, config)
        return add_pruning(cls(read), read)

    def hub_facts(self) -> ModelFacts:
        """What the model card says of the model itself."""
        config = self.config
        view = ", ".join(map(str, config.view_shape))
        rays = ", the rays of their patches and the positions of their cameras," if config.ray_encoding else ""
        rows, columns = config.heatmap_size
        inputs: list[list[torch.Tensor]] = [[torch.zeros(1, *config.view_shape, device="meta")] * _VIEWS]
        if config.ray_encoding:
            patches = config.grid[0] * config.grid[1]
            inputs += [[torch.zeros(1, *shape, device="meta")] * _VIEWS for shape in ((patches, 3), (3,))]
        return ModelFacts(
            module=__package__,
            loader=type(self).__name__,
            does=(
                f"views of one person, a list of (B, {view}),{rays} and gives as many heatmaps "
                f"(B, {config.num_keypoints}, {rows}, {columns})"
            ),
            inputs=tuple(inputs),
            example=f"{_VIEWS} views of {config.image_size[0]} x {config.image_size[1]}",
            stack=_alone(config),
        )


def add_pruning(model: Model, config: MultiViewConfig) -> Model:
    """Prune the layers on single views as ``config`` says, in place, and return the model."""
    if config.prune_layers:
        wrap_pruning(model, config.prune_layers, config.keep, blocks=_alone(config), query="keypoint")
    return model


def _alone(config: MultiViewConfig) -> str:
    """Path of the layers on single views."""
    return "blocks" if config.alone == config.depth else f"blocks[0:{config.alone}]"
