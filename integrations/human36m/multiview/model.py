"""Multi-view PPT: 2D poses in several views of one person, each view pruned to the person, then all seen together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cycledistill.integrations.coco.models.backbones.stemnet import StemNet
from cycledistill.integrations.coco.models.heads import build_head
from cycledistill.integrations.coco.models.position import sine_positions
from cycledistill.integrations.coco.models.transformer import (
    TokenBlock,
    concat_tokens,
    init_transformer,
    split_patches,
)
from cycledistill.prune.kept_tokens import kept_tokens_of, take_argument
from cycledistill.recipes.hub.names import check_options

from .checks import check_views
from .config import MultiViewConfig
from .hub import MultiViewHubModel, add_pruning
from .rays import ray_directions


def merge_views(tokens: Tensor, views: int, keypoints: int) -> Tensor:
    """Tokens of V views as one sequence a sample: all views' keypoint tokens, then all views' visual ones.

    What follows attends over all of them. After pruning the visual tokens are those of the human area.

    Args:
        tokens: (V * B, K + n, C), view after view, keypoint tokens first.
        views: V.
        keypoints: K.

    Returns:
        (B, V * K + V * n, C).

    Example:
        >>> merge_views(torch.zeros(4 * 2, 17 + 89, 192), views=4, keypoints=17).shape
        torch.Size([2, 424, 192])

    Source: PPT (ECCV 2022), section 3.3, human area fusion.
    """
    by_sample = tokens.unflatten(0, (views, -1)).transpose(0, 1)
    return torch.cat([by_sample[:, :, :keypoints].flatten(1, 2), by_sample[:, :, keypoints:].flatten(1, 2)], dim=1)


def split_keypoints(tokens: Tensor, views: int, keypoints: int) -> Tensor:
    """The keypoint tokens of :func:`merge_views`, view after view again.

    Args:
        tokens: (B, V * K + ..., C).
        views: V.
        keypoints: K.

    Returns:
        (V * B, K, C).
    """
    return tokens[:, : views * keypoints].unflatten(1, (views, keypoints)).transpose(0, 1).flatten(0, 1)


class MultiViewPPT(MultiViewHubModel):
    """A TokenPose of several views: its first layers see each view alone, its last ones all views together.

    The views share all weights. `create_multiview` adds the pruning between. `from_pretrained` reads a published one,
    `save_pretrained` and `push_to_hub` write one.

    Args:
        config: What to build.

    Attributes:
        config: What was built.
        blocks: The layers, an ``nn.ModuleList`` of `TokenBlock`; the last ``config.fused_layers`` see all views.
        token_groups: Where the keypoint and visual tokens of a view are in its state (B, K + N, C).

    Source: PPT (ECCV 2022), sections 3.3 and 3.4.
    """

    def __init__(self, config: MultiViewConfig) -> None:
        super().__init__()
        self.config = config
        self.token_groups = {"keypoint": slice(0, config.num_keypoints), "visual": slice(config.num_keypoints, None)}
        height, width = config.patch_size
        self.backbone = StemNet(config.stage1_width) if config.backbone == "stem" else nn.Identity()
        self.keypoint_token = nn.Parameter(torch.zeros(1, config.num_keypoints, config.dim))
        # A frozen parameter, as in the published state dict
        self.pos_embedding = nn.Parameter(sine_positions(*config.grid, config.dim), requires_grad=False)
        self.patch_to_embedding = nn.Linear(height * width * config.channels, config.dim)
        view = config.view
        self.blocks = nn.ModuleList(
            TokenBlock(config.dim, config.heads, config.mlp_ratio, view.attention_scale) for _ in range(config.depth)
        )
        self.mlp_head = build_head(view)
        self.pos_3d_linear = nn.Linear(3, config.dim) if config.ray_encoding else None
        init_transformer(self)
        nn.init.trunc_normal_(self.keypoint_token, std=0.02)

    def forward(
        self, views: Sequence[Tensor], rays: Sequence[Tensor] | None = None, centers: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """Predict the keypoints of one person in every view.

        Args:
            views: V tensors (B, 3, H, W), any V from 1, RGB, normalised by ImageNet's mean and deviation; or features,
                as ``config.view_shape`` says.
            rays: V tensors (B, N, 3), for each patch a point on its ray in the world (`patch_rays`). Needed by a model
                with ``ray_encoding``, and by no other.
            centers: V tensors (B, 3), the cameras' positions in the same axes.

        Returns:
            V heatmaps (B, K, H/4, W/4).

        Raises:
            ValueError: No list of views, views of another or of different shape, dtype or device; rays or centers that
                are missing, not wanted, or do not fit the views.
        """
        directions = self._check(views, rays, centers)
        tokens, positions = self._embed(torch.cat(list(views)))
        for index, block in enumerate(list(self.blocks)[: self.config.alone]):
            tokens = block(tokens, positions if index else None)
        if self.config.fused_layers:
            tokens = self._fuse(tokens, positions, directions, len(views))
        maps = self.mlp_head(tokens[:, : self.config.num_keypoints])
        return list(maps.unflatten(0, (len(views), -1)))  # not chunk: exporters keep the batch free here

    def _embed(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Views to tokens (B, K + N, C), and the positions (1, K + N, C) that every layer but the first adds again."""
        patches = split_patches(self.backbone(views), self.config.patch_size)
        visual = self.patch_to_embedding(patches) + self.pos_embedding
        return concat_tokens(self.keypoint_token, visual), self._behind_keypoints(self.pos_embedding)

    def _fuse(self, tokens: Tensor, positions: Tensor, directions: Tensor | None, views: int) -> Tensor:
        """The fused layers: (V * B, K + n, C) to the keypoint tokens (V * B, K, C)."""
        if directions is not None and self.pos_3d_linear is not None:
            positions = positions + self._behind_keypoints(self.pos_3d_linear(directions))
        kept = kept_tokens_of(tokens)  # positions follow the tokens that the pruning layers left
        if kept is not None:
            positions = take_argument("pos", positions, kept)
        keypoints = self.config.num_keypoints
        together = merge_views(tokens, views, keypoints)
        places = merge_views(positions.expand(tokens.shape[0], -1, -1), views, keypoints)
        for block in list(self.blocks)[self.config.alone :]:
            together = block(together, places)
        return split_keypoints(together, views, keypoints)

    def _behind_keypoints(self, visual: Tensor) -> Tensor:
        return functional.pad(visual, (0, 0, self.config.num_keypoints, 0))

    def _check(
        self, views: Sequence[Tensor], rays: Sequence[Tensor] | None, centers: Sequence[Tensor] | None
    ) -> Tensor | None:
        """Refuse what does not fit; the directions (V * B, N, 3) if the model uses them."""
        like = self.keypoint_token
        checked = check_views("views", views, self.config.view_shape, like)
        if self.pos_3d_linear is None:
            if rays is not None or centers is not None:
                raise ValueError(
                    "rays or centers were given to a model without ray encoding: build it with ray_encoding=True, or "
                    "leave them out"
                )
            return None
        if rays is None or centers is None:
            raise ValueError(
                "this model encodes the rays of its views: give rays=[...], a (B, N, 3) a view (patch_rays makes "
                "them), and centers=[...], a (B, 3) a view; or build it with ray_encoding=False"
            )
        patches = self.config.grid[0] * self.config.grid[1]
        points = check_views("rays", rays, (patches, 3), like, checked)
        places = check_views("centers", centers, (3,), like, checked)
        return ray_directions(torch.cat(points), torch.cat(places))


def create_multiview(**overrides: Any) -> MultiViewPPT:
    """The multi-view PPT with fresh weights, its single-view layers pruned.

    Args:
        **overrides: Fields of `MultiViewConfig` to set otherwise.

    Returns:
        The model. ``model.pruning`` is the handle of its pruning (``.keep`` is settable), where it has pruning layers.

    Raises:
        ValueError: An unknown field, with the nearest known one, or a value out of its range.

    Example:
        >>> model = create_multiview(ray_encoding=False).eval()
        >>> [maps.shape for maps in model([torch.zeros(1, 3, 256, 256)] * 4)][0]
        torch.Size([1, 17, 64, 64])

    Source: PPT (ECCV 2022).
    """
    check_options(overrides, [field.name for field in fields(MultiViewConfig)], "the multi-view PPT")
    config = MultiViewConfig(**overrides)
    return add_pruning(MultiViewPPT(config), config)
