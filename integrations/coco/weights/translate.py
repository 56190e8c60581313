"""Weights of an official file in our names, and back, strictly: every tensor is accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.files import State
from cycledistill.recipes.weights.fitting import mismatch, shorten

from ..models.config import TokenPoseConfig
from .official import FLOW, FORMATS, Format, guess_format
from .suggest import flow_shapes, keypoint_count, model_shapes, suggest


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
    names = {str(layout.to_ours(key, config)): tensor for key, tensor in state.items()}
    converted = Converted(
        {name: tensor for name, tensor in names.items() if not name.startswith(FLOW)},
        {name: tensor for name, tensor in names.items() if name.startswith(FLOW)},
        layout.name,
    )
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


def _fitting(state: Mapping[str, Tensor]) -> str:
    def read(config: TokenPoseConfig) -> Mapping[str, Tensor] | None:
        if is_ours(state):
            return state
        layout, unknown = guess_format(state, config)
        if unknown or not _same_scale(layout, config):
            return None
        names = {str(layout.to_ours(key, config)): tensor for key, tensor in state.items()}
        return {name: tensor for name, tensor in names.items() if not name.startswith(FLOW)}

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
