"""Whether weights fit a model, name by name and shape by shape, and which model they fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType

import torch
from torch import Tensor

from cycledistill.recipes.weights.fitting import mismatch

from ..losses.rle import RealNVP
from ..models.config import TokenPoseConfig
from ..models.registry import list_pose_models, pose_model_config
from ..models.tokenpose import TokenPose

_IMAGE_SIZES = ((256, 192), (384, 288), (256, 256))

Shapes = Mapping[str, tuple[int, ...]]
Reader = Callable[[TokenPoseConfig], Mapping[str, Tensor] | None]
"""What a file holds if it is of a model of this config, under our names; ``None``: it holds other names."""


@lru_cache(maxsize=128)  # a file that fits none is compared with every model known by name
def model_shapes(config: TokenPoseConfig) -> Shapes:
    """Name -> shape of every weight of the model; no memory is spent on them."""
    with torch.device("meta"):
        model = TokenPose(config)
    return MappingProxyType({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})


def flow_shapes() -> Shapes:
    """Name -> shape of every weight of the flow of `RLELoss`."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in RealNVP().state_dict(prefix="flow_model.").items()}


def suggest(reader: Reader, keypoints: int | None) -> str:
    """Names of the models that the weights fit, as the end of an error message.

    Args:
        reader: Gives the weights as those of a model of a config.
        keypoints: The number of keypoint tokens, where the weights show it.
    """
    if keypoints is None:
        return "no keypoint tokens were found, so this is no TokenPose model"
    for size in _IMAGE_SIZES:
        found = [name for name in list_pose_models() if _fits(name, size, keypoints, reader)]
        if found:
            options = "" if keypoints == 17 else f", num_keypoints={keypoints}"
            options += "" if size == _IMAGE_SIZES[0] else f", image_size={size}"
            return f"the weights fit {' or '.join(found)}{options}"
    return f"they fit none of the models known by name (list_pose_models()) with {keypoints} keypoints"


def _fits(name: str, size: tuple[int, int], keypoints: int, reader: Reader) -> bool:
    config = replace(pose_model_config(name).network, num_keypoints=keypoints)
    try:
        config = replace(config, image_size=size)
    except ValueError:  # this model's patches do not divide the size
        return False
    state = reader(config)
    return state is not None and not mismatch(state, model_shapes(config))


def keypoint_count(state: Mapping[str, Tensor]) -> int | None:
    """The number of keypoint tokens in weights of any naming."""
    found = [tensor for name, tensor in state.items() if name.rpartition(".")[2] == "keypoint_token"]
    return int(found[0].shape[1]) if len(found) == 1 and found[0].ndim == 3 else None
