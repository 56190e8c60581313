"""TokenPose: keypoints as tokens among the patches of an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cycledistill.plugin.handle import KINDS, handle_of

from .backbones.hrnet import HRNet
from .backbones.stemnet import StemNet
from .config import TokenPoseConfig
from .heads import build_head
from .hub import PoseHubModel
from .position import sine_positions
from .transformer import TokenBlock, concat_tokens, init_transformer, split_patches


class TokenPose(PoseHubModel):
    """A transformer over K keypoint tokens and the N patches of an image; the head reads the keypoint tokens.

    The one model behind TokenPose, SDPose (``wrap_cyclic`` of it), PPT (``wrap_pruning`` of it) and the regression
    models. There is no LayerNorm after the stack. ``TokenPose.from_pretrained("user/name")`` reads a published one,
    ``model.save_pretrained(folder)`` and ``model.push_to_hub("user/name")`` write one.

    Args:
        config: What to build.

    Attributes:
        config: What was built.
        blocks: The stack, an ``nn.ModuleList`` of `TokenBlock`.
        token_groups: Where the keypoint and visual tokens are in the stack's state (B, K + N, C).

    Example:
        >>> model = TokenPose(TokenPoseConfig(num_keypoints=17, image_size=(256, 192)))
        >>> model(torch.zeros(2, 3, 256, 192)).shape
        torch.Size([2, 17, 64, 48])

    Source: TokenPose (ICCV 2021, arXiv 2104.03516).
    """

    def __init__(self, config: TokenPoseConfig) -> None:
        super().__init__()
        self.config = config
        self._takes = (3, *config.image_size)
        self.token_groups = {"keypoint": slice(0, config.num_keypoints), "visual": slice(config.num_keypoints, None)}
        rows, columns = config.grid
        height, width = config.patch_size
        self.backbone = _build_backbone(config)
        self.keypoint_token = nn.Parameter(torch.zeros(1, config.num_keypoints, config.dim))
        if config.position == "learnable":
            learned = torch.zeros(1, config.num_keypoints + rows * columns, config.dim)
            self.pos_embedding = nn.Parameter(learned)
        else:  # a frozen parameter, as in the published state dicts
            self.pos_embedding = nn.Parameter(sine_positions(rows, columns, config.dim), requires_grad=False)
        self.patch_to_embedding = nn.Linear(height * width * config.channels, config.dim)
        self.blocks = nn.ModuleList(
            TokenBlock(config.dim, config.heads, config.mlp_ratio, config.attention_scale) for _ in range(config.depth)
        )
        self.mlp_head = build_head(config)
        self._init_weights()

    def _init_weights(self) -> None:
        init_transformer(self)
        nn.init.trunc_normal_(self.keypoint_token, std=0.02)
        if self.config.position == "learnable":
            nn.init.trunc_normal_(self.pos_embedding, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Predict the keypoints of a batch of images.

        Args:
            images: (B, 3, H, W) of the size in the config, RGB, normalised by ImageNet's mean and deviation.

        Returns:
            Heatmaps (B, K, H/4, W/4), or what the regression head returns: (B, K, 5) or (B, K, 4).

        Raises:
            ValueError: Images of another shape.
        """
        self._check_images(images)
        tokens, positions = self.embed(images)
        part = self.config.depth // self.config.readouts
        read = []
        for index, block in enumerate(self.blocks):
            # Nothing is added again in front of the first layer, in this or in any later cycle.
            tokens = block(tokens, positions if index % part else None)
            if (index + 1) % part == 0:
                read.append(tokens[:, : self.config.num_keypoints])
        return self.mlp_head(read[0] if len(read) == 1 else torch.cat(read, dim=-1))

    def take_backbone(self) -> nn.Module:
        """Take the backbone off and return it: from then on the model takes the backbone's features for images.

        For frameworks that hold backbone and head apart. ``model(backbone(images))`` is what ``model(images)`` was,
        and the names of the weights stay, those of the backbone without their ``backbone.``.

        Returns:
            The backbone: images (B, 3, H, W) to features (B, C, H/4, W/4).

        Raises:
            ValueError: The model has no backbone, or is wrapped (take the backbone off first, then wrap).

        Example:
            >>> model = create_pose_model("tokenpose_b")
            >>> backbone = model.take_backbone()
            >>> model(backbone(torch.zeros(1, 3, 256, 192))).shape
            torch.Size([1, 17, 64, 48])
        """
        if isinstance(self.backbone, nn.Identity):
            raise ValueError("this model has no backbone to take off: its tokens are patches of what it is given")
        if any(handle_of(self, kind) for kind in KINDS):
            raise ValueError("this model is wrapped: unwrap it, take its backbone off, and wrap it again")
        backbone, self.backbone = self.backbone, nn.Identity()
        self._takes = (self.config.channels, *self.config.heatmap_size)
        return backbone

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images to the tokens that enter the stack.

        Args:
            images: (B, 3, H, W).

        Returns:
            Tokens (B, K + N, C), and the positions that every later layer adds again, (1, K + N, C) with zeros for the
            keypoint tokens, or ``None`` where positions are added once.
        """
        visual = self.patch_to_embedding(split_patches(self.backbone(images), self.config.patch_size))
        if self.config.position == "learnable":
            return concat_tokens(self.keypoint_token, visual) + self.pos_embedding, None
        tokens = concat_tokens(self.keypoint_token, visual + self.pos_embedding)
        if self.config.position == "sine":
            return tokens, None
        return tokens, F.pad(self.pos_embedding, (0, 0, self.config.num_keypoints, 0))

    def _check_images(self, images: Tensor) -> None:
        expected = self._takes
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"images of shape {tuple(images.shape)}: (B, {', '.join(map(str, expected))}) is expected, channels, "
                "height and width of the config; resize the images, or build the model with "
                "image_size=(height, width)"
            )


def _build_backbone(config: TokenPoseConfig) -> nn.Module:
    if config.backbone == "none":
        return nn.Identity()
    if config.backbone == "stem":
        return StemNet(config.stage1_width)
    return HRNet(config.channels, config.stage1_width)
