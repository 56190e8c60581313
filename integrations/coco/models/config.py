"""What a TokenPose model is built from: a frozen, self-checking description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Size = tuple[int, int]
"""Height and width."""

Backbone = Literal["stem", "hrnet_w32", "hrnet_w48", "none"]
Position = Literal["sine-full", "sine", "learnable"]
Head = Literal["heatmap", "token_reg", "rle"]
Scale = Literal["head_dim", "dim"]

BACKBONE_STRIDE = 4
"""Pixels of the image per pixel of a backbone's features, and per pixel of the heatmap."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, of red, green and blue between 0 and 1, by which images are normalised."""

_CHANNELS = {"hrnet_w32": 32, "hrnet_w48": 48, "none": 3}
_STEM_CHANNELS = 4
"""Channels of the stem's features per middle channel of its bottlenecks."""
_CHOICES: dict[str, tuple[str, ...]] = {
    "backbone": get_args(Backbone),
    "position": get_args(Position),
    "head": get_args(Head),
}


@dataclass(frozen=True)
class TokenPoseConfig:
    """Architecture of one TokenPose model. Sizes are (height, width).

    Args:
        num_keypoints: Keypoints to predict, one learned token each.
        image_size: Size of the input image in pixels.
        backbone: ``"stem"`` (two strided convolutions and four bottlenecks), ``"hrnet_w32"`` or ``"hrnet_w48"`` up to
            stage 3, or ``"none"``: tokens are patches of the image itself.
        stage1_width: Middle width of the first stage of HRNet and of the stem: 64 as in HRNet and its ImageNet weights,
            32 as in the checkpoints published with SDPose-B, less for a model that a CPU trains. ``"none"`` has none.
        patch_size: Size of a patch in pixels of the backbone's features.
        dim: Channels of a token.
        depth: Transformer layers.
        heads: Attention heads; ``dim`` is divided among them.
        mlp_ratio: Hidden channels of a layer's MLP, in units of ``dim``.
        scale: Factor on the attention scores before the softmax: ``"head_dim"`` (the root of a head's channels, as
            everywhere in SDPose and DistilPose), ``"dim"`` (the root of all channels, as in the original TokenPose-S
            and PPT-S), each to the power -1, or a number.
        position: ``"sine-full"`` (a fixed sine table, added to the visual tokens in front of every layer), ``"sine"``
            (the table, added once) or ``"learnable"`` (one learned table for all tokens, added once).
        readouts: How many equal parts of the stack the head reads keypoint tokens after: 1, or 3 in TokenPose-L,
            where the three are concatenated. Each part is a stack of its own to ``position``: nothing is added in
            front of its first layer.
        head: ``"heatmap"``; ``"token_reg"`` (DistilPose: coordinates, score, sigma); ``"rle"`` (coordinates and
            sigma for residual log-likelihood estimation).
        head_hidden: Hidden channels of the head. Default: an eighth of the heatmap's pixels, or 64 for regression.
            Where ``dim`` is more than half of them, the head has one linear layer instead of two.

    Raises:
        ValueError: A field out of its range, or sizes that do not divide.

    Example:
        >>> TokenPoseConfig(image_size=(384, 288), num_keypoints=14).grid
        (24, 24)

    Source: TokenPose (ICCV 2021, arXiv 2104.03516); SDPose (CVPR 2024); DistilPose (CVPR 2023).
    """

    num_keypoints: int = 17
    image_size: Size = (256, 192)
    backbone: Backbone = "stem"
    stage1_width: int = 64
    patch_size: Size = (4, 3)
    dim: int = 192
    depth: int = 12
    heads: int = 8
    mlp_ratio: int = 3
    scale: Scale | float = "head_dim"
    position: Position = "sine-full"
    readouts: int = 1
    head: Head = "heatmap"
    head_hidden: int | None = None

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size"):
            size = getattr(self, name)
            if not isinstance(size, (tuple, list)) or len(size) != 2 or not all(map(is_positive, size)):
                raise ValueError(f"{name}={size!r}: height and width, two whole numbers above 0, are expected")
            object.__setattr__(self, name, tuple(size))  # a recipe read from YAML has lists
        for name in ("num_keypoints", "stage1_width", "dim", "depth", "heads", "mlp_ratio", "readouts"):
            if not is_positive(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)!r}: a whole number above 0 is expected")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r}: {' or '.join(map(repr, choices))} is expected")
        if self.head_hidden is not None and not is_positive(self.head_hidden):
            raise ValueError(f"head_hidden={self.head_hidden!r}: a whole number above 0, or None, is expected")
        self._check_scale()
        self._check_sizes()

    def _check_scale(self) -> None:
        scale = self.scale
        is_number = isinstance(scale, (int, float)) and not isinstance(scale, bool) and scale > 0
        if scale not in get_args(Scale) and not is_number:
            choices = ", ".join(f'"{each}"' for each in get_args(Scale))
            raise ValueError(f"scale={scale!r}: {choices} or a number above 0 is expected")

    def _check_sizes(self) -> None:
        stride = 1 if self.backbone == "none" else BACKBONE_STRIDE
        for side, pixels, patch in zip(("height", "width"), self.image_size, self.patch_size, strict=True):
            step = stride * patch
            if pixels % step or pixels % BACKBONE_STRIDE:
                near = max(round(pixels / step), 1) * step
                raise ValueError(
                    f"image_size={self.image_size}: the {side} {pixels} is not divisible by {step}, the image pixels "
                    f"of one patch (patch_size={self.patch_size}, backbone {self.backbone!r} of stride {stride}); "
                    f"the nearest {side} that is: {near}"
                )
            if self.backbone.startswith("hrnet") and pixels % 16:
                raise ValueError(
                    f"image_size={self.image_size}: HRNet's three branches need a {side} divisible by 16, not {pixels}"
                )
        if self.dim % self.heads:
            raise ValueError(f"dim={self.dim} is not divisible by heads={self.heads}")
        if self.position != "learnable" and self.dim % 4:
            raise ValueError(f"dim={self.dim}: the sine table needs a number of channels divisible by 4")
        if self.depth % self.readouts:
            raise ValueError(f"depth={self.depth} is not divisible by readouts={self.readouts}")

    @property
    def channels(self) -> int:
        """Channels of the backbone's features."""
        return _STEM_CHANNELS * self.stage1_width if self.backbone == "stem" else _CHANNELS[self.backbone]

    @property
    def grid(self) -> Size:
        """Rows and columns of patches."""
        stride = 1 if self.backbone == "none" else BACKBONE_STRIDE
        rows, columns = (
            pixels // (stride * patch) for pixels, patch in zip(self.image_size, self.patch_size, strict=True)
        )
        return rows, columns

    @property
    def heatmap_size(self) -> Size:
        """Height and width of the heatmaps."""
        return self.image_size[0] // BACKBONE_STRIDE, self.image_size[1] // BACKBONE_STRIDE

    @property
    def attention_scale(self) -> float:
        """The factor on the attention scores."""
        if self.scale == "head_dim":
            return float((self.dim // self.heads) ** -0.5)
        return float(self.dim**-0.5 if self.scale == "dim" else self.scale)


def is_positive(value: object) -> bool:
    """Whether a value is a whole number above 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
