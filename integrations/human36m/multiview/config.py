"""What a multi-view pose model is built from: a frozen, self-checking description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Size = tuple[int, int]
"""Height and width."""

STRIDE = 4
"""Pixels of the picture per pixel of the backbone's features, and per pixel of the heatmap."""


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
        for name in ("image_size", "patch_size"):
            size = getattr(self, name)
            if not isinstance(size, (tuple, list)) or len(size) != 2 or not all(map(_is_positive, size)):
                raise ValueError(f"{name}={size!r}: height and width, two whole numbers above 0, are expected")
            object.__setattr__(self, name, tuple(size))
        for name in ("num_keypoints", "in_channels", "stage1_width", "dim", "depth", "heads", "mlp_ratio"):
            if not _is_positive(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)!r}: a whole number above 0 is expected")
        if self.head_hidden is not None and not _is_positive(self.head_hidden):
            raise ValueError(f"head_hidden={self.head_hidden!r}: a whole number above 0, or None, is expected")
        self._check_sizes()
        self._check_layers()

    def _check_sizes(self) -> None:
        if self.backbone not in ("stem", "none", "features"):
            raise ValueError(f'backbone={self.backbone!r}: "stem", "none" or "features" is expected')
        if self.backbone == "stem" and self.in_channels != 3:
            raise ValueError(
                f'in_channels={self.in_channels}: the stem takes 3; backbone="none" or "features" takes any number'
            )
        stride = 1 if self.backbone == "none" else STRIDE
        for side, pixels, patch in zip(("height", "width"), self.image_size, self.patch_size, strict=True):
            if pixels % (stride * patch) or pixels % STRIDE:
                raise ValueError(
                    f"image_size={self.image_size}: the {side} {pixels} must be divisible by {STRIDE} and by "
                    f"{stride * patch}, the pixels of one patch (patch_size={self.patch_size})"
                )
        if self.dim % self.heads:
            raise ValueError(f"dim={self.dim} is not divisible by heads={self.heads}")
        if self.dim % 4:
            raise ValueError(f"dim={self.dim}: the sine table needs a number of channels divisible by 4")

    def _check_layers(self) -> None:
        if not isinstance(self.keep, (int, float)) or isinstance(self.keep, bool) or not 0 < self.keep <= 1:
            raise ValueError(f"keep={self.keep!r}: a fraction of the tokens, above 0 and at most 1, is expected")
        fused = self.fused_layers
        if not _is_whole(fused) or not 0 <= fused < self.depth:
            raise ValueError(
                f"fused_layers={fused!r}: a whole number from 0 to {self.depth - 1} is expected; at least one of the "
                f"{self.depth} layers sees single views"
            )
        layers = self.prune_layers
        if (
            not isinstance(layers, (tuple, list, range))
            or not all(map(_is_whole, layers))
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

    @property
    def alone(self) -> int:
        """Layers on single views."""
        return self.depth - self.fused_layers

    @property
    def channels(self) -> int:
        """Channels of the backbone's features."""
        return 4 * self.stage1_width if self.backbone == "stem" else self.in_channels

    @property
    def patch_pixels(self) -> Size:
        """Height and width of a patch in pixels of the view."""
        stride = 1 if self.backbone == "none" else STRIDE
        return stride * self.patch_size[0], stride * self.patch_size[1]

    @property
    def grid(self) -> Size:
        """Rows and columns of patches."""
        height, width = self.patch_pixels
        return self.image_size[0] // height, self.image_size[1] // width

    @property
    def view_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what the model is given for a view."""
        return (self.in_channels, *(self.heatmap_size if self.backbone == "features" else self.image_size))

    @property
    def heatmap_size(self) -> Size:
        """Height and width of the heatmaps."""
        return self.image_size[0] // STRIDE, self.image_size[1] // STRIDE


def _is_positive(value: Any) -> bool:
    return _is_whole(value) and value > 0


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
