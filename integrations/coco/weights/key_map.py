"""The key map between the files of SDPose, TokenPose, DistilPose and PPT and our models, strict in every tensor."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.files import State
from cycledistill.recipes.weights.fitting import mismatch, shorten

from ..models.config import TokenPoseConfig
from .suggest import flow_shapes, keypoint_count, model_shapes, suggest

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


@dataclass(frozen=True)
class Converted:
    """An official file in our names.

    Attributes:
        model: Weights of the `TokenPose`.
        loss: Weights of `RLELoss`, where the file has them, else empty.
        format: Name of the format it was in.
    """

    model: State
    loss: State
    format: str


def from_official(state: Mapping[str, Tensor], config: TokenPoseConfig) -> Converted:
    """Weights under the names of an official file, under ours.

    Args:
        state: Name -> tensor, as `read_weights` returns them.
        config: The network they are of.

    Raises:
        CheckpointError: Names that no format knows, tensors missing, of another shape, or trained with another
            attention scale. The message names them, and the models that the weights fit.

    Example:
        >>> converted = from_official(read_weights("sdpose_s_v1.pth"), pose_model_config("sdpose_s_v1").network)
        >>> TokenPose(pose_model_config("sdpose_s_v1").network).load_state_dict(converted.model)
        <All keys matched successfully>
    """
    layout, unknown = guess_format(state, config)
    if unknown:
        raise CheckpointError(
            f"{len(unknown)} of {len(state)} names are unknown in a file of the format {layout.name!r} for this model: "
            f"{shorten(unknown)}; {_fitting(state)}"
        )
    converted = _in_our_names(state, layout, config)
    wrong = mismatch(converted.model, model_shapes(config))
    wrong = wrong or (mismatch(converted.loss, flow_shapes()) if converted.loss else "")
    if wrong:
        raise CheckpointError(f"the weights are not those of this model, {wrong}; {_fitting(state)}")
    _check_scale(layout, config)
    return converted


def to_official(
    model: Mapping[str, Tensor], config: TokenPoseConfig, layout: str, loss: Mapping[str, Tensor] | None = None
) -> State:
    """Weights under our names, under those of an official code base.

    Args:
        model: ``state_dict()`` of a `TokenPose`.
        config: Its config.
        layout: Name of one of `FORMATS`.
        loss: ``state_dict()`` of an `RLELoss`, to store beside it.

    Raises:
        CheckpointError: An unknown format, one that cannot hold this model, or weights of another config.
    """
    if layout not in FORMATS:
        raise CheckpointError(f"{layout!r} is no format; known: {', '.join(FORMATS)}")
    form = FORMATS[layout]
    check_ours(model, config)
    if loss and not form.flow:
        holding = ", ".join(name for name, each in FORMATS.items() if each.flow)
        raise CheckpointError(f"files of the format {layout!r} hold no loss; those that do: {holding}")
    wrong = mismatch(loss, flow_shapes()) if loss else ""
    if wrong:
        raise CheckpointError(f"the weights of the loss are not those of RLELoss, {wrong}")
    _check_scale(form, config)
    return {form.to_official(name, config): tensor for name, tensor in (dict(model) | dict(loss or {})).items()}


def check_ours(state: Mapping[str, Tensor], config: TokenPoseConfig) -> None:
    """Refuse weights under our names that are not, tensor by tensor, those of a model of ``config``.

    Raises:
        CheckpointError: Tensors missing, unknown or of another shape, and the models that the weights fit.
    """
    wrong = mismatch(state, model_shapes(config))
    if wrong:
        raise CheckpointError(f"the weights are not those of this model, {wrong}; {_fitting(state)}")


def is_ours(state: Mapping[str, Tensor]) -> bool:
    """Whether weights are under our names rather than under official ones."""
    return "keypoint_token" in state or any(name.startswith("blocks.") for name in state)


def _in_our_names(state: Mapping[str, Tensor], layout: Format, config: TokenPoseConfig) -> Converted:
    names = {str(layout.to_ours(key, config)): tensor for key, tensor in state.items()}
    loss = {name: names.pop(name) for name in list(names) if name.startswith(FLOW)}
    return Converted(names, loss, layout.name)


def _fitting(state: Mapping[str, Tensor]) -> str:
    def read(config: TokenPoseConfig) -> Mapping[str, Tensor] | None:
        if is_ours(state):
            return state
        layout, unknown = guess_format(state, config)
        if unknown or not _same_scale(layout, config):
            return None
        return _in_our_names(state, layout, config).model

    return suggest(read, keypoint_count(state))


def _same_scale(layout: Format, config: TokenPoseConfig) -> bool:
    return (
        config.attention_scale
        == TokenPoseConfig(dim=config.dim, heads=config.heads, scale=layout.scale).attention_scale
    )


def _check_scale(layout: Format, config: TokenPoseConfig) -> None:
    if not _same_scale(layout, config):
        raise CheckpointError(
            f"models of the format {layout.name!r} have the attention scale {layout.scale!r}, and this one has "
            f"{config.scale!r}: their weights would fit and predict something else. Set scale={layout.scale!r}, or "
            f"take the model {'with' if layout.scale == 'dim' else 'without'} _original at the end of its name"
        )
