"""Names of the weights in the files of SDPose, TokenPose, DistilPose and PPT, and in ours."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..models.config import TokenPoseConfig

FLOW = "flow_model."
"""Start of the names of the weights of `RLELoss`, which are no part of the model."""

_LAYER = {  # names in a layer of the official stack -> ours
    "0.fn.norm": "norm1",
    "0.fn.fn.to_qkv": "attn.qkv",
    "0.fn.fn.to_out.0": "attn.proj",
    "1.fn.norm": "norm2",
    "1.fn.fn.net.0": "mlp.fc1",
    "1.fn.fn.net.3": "mlp.fc2",
}
# PPT's own code has no wrapper around the attention.
_BARE_LAYER = {
    **{name: ours for name, ours in _LAYER.items() if name.startswith("1.")},
    "0.norm": "norm1",
    "0.fn.to_qkv": "attn.qkv",
    "0.fn.to_out.0": "attn.proj",
}
_TOKEN_NAMES = re.compile(
    r"(keypoint_token|pos_embedding|patch_to_embedding\.(weight|bias)|mlp_head\.\d\.(weight|bias))"
)
_BACKBONE_NAMES = re.compile(r"(conv1|conv2|bn1|bn2|layer1|transition[12]|stage[23])\.")
_OFFICIAL_FLOW = "keypoint_head.kpt_loss." + FLOW


@dataclass(frozen=True)
class Format:
    """How one code base names the weights.

    Attributes:
        name: What the converter calls it.
        backbone: Start of the names of the backbone.
        tokens: Start of the names of the rest.
        stack: Name of the stack of layers.
        bare: The attention lacks the outer wrapper of the other code bases.
        scale: Attention scale of its models, which the weights do not show.
        flow: Files of this format may hold the flow of `RLELoss`.
    """

    name: str
    backbone: str
    tokens: str
    stack: str = "transformer"
    bare: bool = False
    scale: Literal["head_dim", "dim"] = "head_dim"
    flow: bool = False

    def to_ours(self, key: str, config: TokenPoseConfig) -> str | None:
        """Our name of an official one, starting with `FLOW` for the loss; ``None``: not a name of this format."""
        if self.flow and key.startswith(_OFFICIAL_FLOW):
            return FLOW + key.removeprefix(_OFFICIAL_FLOW)
        if config.backbone != "none" and key.startswith(self.backbone):
            rest = key.removeprefix(self.backbone)
            if _BACKBONE_NAMES.match(rest):
                return f"backbone.{rest}"
        if not key.startswith(self.tokens):
            return None
        rest = key.removeprefix(self.tokens)
        if _TOKEN_NAMES.fullmatch(rest):
            return rest
        return self._layer_to_ours(rest, config)

    def _layer_to_ours(self, rest: str, config: TokenPoseConfig) -> str | None:
        layers = _BARE_LAYER if self.bare else _LAYER
        found = re.fullmatch(rf"{self.stack}(\d?)\.layers\.(\d+)\.(.+)\.(weight|bias)", rest)
        if found is None or found[3] not in layers or bool(found[1]) != (config.readouts > 1):
            return None
        part = int(found[1] or 1) - 1
        index = part * (config.depth // config.readouts) + int(found[2])
        return f"blocks.{index}.{layers[found[3]]}.{found[4]}"

    def to_official(self, key: str, config: TokenPoseConfig) -> str:
        """The official name of one of ours.

        Raises:
            KeyError: Not one of our names.
        """
        if key.startswith(FLOW):
            return _OFFICIAL_FLOW + key.removeprefix(FLOW)
        if key.startswith("backbone."):
            return self.backbone + key.removeprefix("backbone.")
        if _TOKEN_NAMES.fullmatch(key):
            return self.tokens + key
        found = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", key)
        if found is None:
            raise KeyError(key)
        theirs = {ours: name for name, ours in (_BARE_LAYER if self.bare else _LAYER).items()}
        part, index = divmod(int(found[1]), config.depth // config.readouts)
        stack = f"{self.stack}{part + 1}" if config.readouts > 1 else self.stack
        return f"{self.tokens}{stack}.layers.{index}.{theirs[found[2]]}.{found[3]}"


FORMATS: dict[str, Format] = {
    each.name: each
    for each in (
        Format("sdpose", "backbone.", "keypoint_head.tokenpose.", "transformer_layer1"),
        Format("sdpose-tokenpose", "backbone.", "keypoint_head.tokenpose."),
        Format("distilpose", "backbone.", "keypoint_head.tokenhead.", flow=True),
        Format("tokenpose-s", "features.", "features.", scale="dim"),
        Format("tokenpose", "pre_feature.", "transformer."),
        Format("ppt-s", "features.", "features.", bare=True, scale="dim"),
        Format("ppt", "pre_feature.", "transformer.", bare=True),
    )
}
"""The official formats: SDPose's cyclic and PPT heads, its TokenPose head, DistilPose (and SDPose-Reg), TokenPose-S and
the other TokenPose models, PPT-S and the other PPT models."""


def guess_format(keys: Iterable[str], config: TokenPoseConfig) -> tuple[Format, list[str]]:
    """The format that knows most of the names, and the names it does not know."""
    keys = list(keys)
    rest = {name: [key for key in keys if each.to_ours(key, config) is None] for name, each in FORMATS.items()}
    best = min(rest, key=lambda name: len(rest[name]))
    return FORMATS[best], rest[best]
