"""What a multi-view pose model is built from: a frozen, self-checking description."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from cycledistill.integrations.coco.models.config import Size, TokenPoseConfig, is_positive


@dataclass(frozen=True)
class MultiViewConfig:
    """Architecture of one multi-view PPT. The defaults are the published model. Sizes are (height, width).

    Args:
        num_keypoints: Keypoints to predict, one learned token each.
        image_size: Size of one view in pixels.
        backbone: ``"stem"`` (two strided convolutions and four bottlenecks); ``"none"``: tokens are patches of the view
            itself; or ``"features"``: a view is given as features (B, in_channels, H/4, W/4) that a backbone elsewhere
            made of it.
        in_channels: Channels of what is given for a view; the stem takes 3.
        stage1_width: Middle width of the stem's bottlenecks.
        patch_size: Size of a patch in pixels of the backbone's features.
        dim: Channels of a token.
        depth: Transformer layers, those on single views and those on all views together.
        heads: Attention heads; ``dim`` is divided among them.
        mlp_ratio: Hidden channels of a layer's MLP, in units of ``dim``.
        head_hidden: Hidden channels of the head. Default: an eighth of the heatmap's pixels. Where ``dim`` is more than
            half of them, the head has one linear layer instead of two.
        prune_layers: Layers on single views after whose attention visual tokens are dropped; none: no pruning.
        keep: Fraction of the visual tokens that each of them keeps.
        fused_layers: How many layers, the last ones, take the tokens of all views together; 0: views stay apart, which
            is the single-view PPT.
        ray_encoding: In the fused layers a learned code of the direction in which its camera sees a token is added.

    Raises:
        ValueError: A field out of its range, or sizes that do not divide.

    Example:
        >>> MultiViewConfig().grid
        (16, 16)

    Source: PPT (ECCV 2022), section 3.3.
    """

    num_keypoints: int = 17
    image_size: Size = (256, 256)
    backbone: Literal["stem", "none", "features"] = "stem"
    in_channels: int = 3
    stage1_width: int = 64
    patch_size: Size = (4, 4)
    dim: int = 192
    depth: int = 12
    heads: int = 8
    mlp_ratio: int = 3
    head_hidden: int | None = None
    prune_layers: tuple[int, ...] = (3, 6, 9)
    keep: float = 0.7
    fused_layers: int = 2
    ray_encoding: bool = True

    def __post_init__(self) -> None:
        if self.backbone not in ("stem", "none", "features"):
            raise ValueError(f'backbone={self.backbone!r}: "stem", "none" or "features" is expected')
        if not is_positive(self.in_channels):
            raise ValueError(f"in_channels={self.in_channels!r}: a whole number above 0 is expected")
        if self.backbone == "stem" and self.in_channels != 3:
            raise ValueError(
                f'in_channels={self.in_channels}: the stem takes 3; backbone="none" or "features" takes any number'
            )
        view = self.view
        object.__setattr__(self, "image_size", view.image_size)
        object.__setattr__(self, "patch_size", view.patch_size)
        self._check_layers()

    def _check_layers(self) -> None:
        if not isinstance(self.keep, (int, float)) or isinstance(self.keep, bool) or not 0 < self.keep <= 1:
            raise ValueError(f"keep={self.keep!r}: a fraction of the tokens, above 0 and at most 1, is expected")
        fused = self.fused_layers
        if type(fused) is not int or not 0 <= fused < self.depth:
            raise ValueError(
                f"fused_layers={fused!r}: a whole number from 0 to {self.depth - 1} is expected; at least one of the "
                f"{self.depth} layers sees single views"
            )
        layers = self.prune_layers
        if (
            not isinstance(layers, (tuple, list, range))
            or any(type(layer) is not int for layer in layers)
            or len({*layers}) < len(layers)
        ):
            raise ValueError(
                f"prune_layers={layers!r}: numbers of layers, each once, are expected, as (3, 6, 9); () prunes nothing"
            )
        object.__setattr__(self, "prune_layers", tuple(layers))
        outside = [layer for layer in self.prune_layers if not 0 <= layer < self.alone]
        if outside:
            raise ValueError(
                f"prune_layers={self.prune_layers}: {outside[0]} is none of the layers on single views, 0 to "
                f"{self.alone - 1} (depth={self.depth}, of which fused_layers={fused})"
            )
        if self.ray_encoding and not fused:
            raise ValueError("ray_encoding acts in the fused layers, and fused_layers=0: set ray_encoding=False")

    @cached_property
    def view(self) -> TokenPoseConfig:
        """The single-view model of the same parts; it checks the fields that both have."""
        return TokenPoseConfig(
            num_keypoints=self.num_keypoints,
            image_size=self.image_size,
            backbone="none" if self.backbone == "none" else "stem",
            stage1_width=self.stage1_width,
            patch_size=self.patch_size,
            dim=self.dim,
            depth=self.depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            scale="dim",
            head_hidden=self.head_hidden,
        )

    @property
    def alone(self) -> int:
        """Layers on single views."""
        return self.depth - self.fused_layers

    @property
    def channels(self) -> int:
        """Channels of the backbone's features."""
        return self.view.channels if self.backbone == "stem" else self.in_channels

    @property
    def patch_pixels(self) -> Size:
        """Height and width of a patch in pixels of the view."""
        rows, columns = self.grid
        return self.image_size[0] // rows, self.image_size[1] // columns

    @property
    def grid(self) -> Size:
        """Rows and columns of patches."""
        return self.view.grid

    @property
    def view_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what the model is given for a view."""
        return (self.in_channels, *(self.heatmap_size if self.backbone == "features" else self.image_size))

    @property
    def heatmap_size(self) -> Size:
        """Height and width of the heatmaps."""
        return self.view.heatmap_size
