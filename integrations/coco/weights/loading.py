"""Weights into models and out of them: ours, official files, and HRNet trained on ImageNet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.files import State, of_file, read_weights, stored_network, write_weights
from cycledistill.recipes.weights.fitting import mismatch, other_network

from ..models.config import TokenPoseConfig
from ..models.tokenpose import TokenPose
from .described import check_joints, joints_in, words_of
from .key_map import check_ours, from_official, is_ours

_BEYOND_STAGE_3 = ("stage4.", "transition3.", "stage3.3.fuse_layers.1.", "stage3.3.fuse_layers.2.")
_CLASSIFIER = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.")
_BEYOND_STAGE_1 = ("transition1.", "stage2.", "transition2.", "stage3.")


def load_pose_weights(model: TokenPose, path: str | Path) -> State:
    """Load a file of weights, ours or an official one, into a model, all of them or none.

    Where the file says which joints it is of, a model without joints of its own takes them.

    Args:
        model: A model of `create_pose_model`, wrapped or not.
        path: ``.safetensors`` or a PyTorch checkpoint.

    Returns:
        The weights of `RLELoss` that an official file holds beside the model's, else empty.

    Raises:
        CheckpointError: As for `read_weights` and `from_official`, or weights of other joints. The model is then as it
            was.

    Example:
        >>> model = create_pose_model("sdpose_b", stage1_width=32)
        >>> load_pose_weights(model, "sdpose_b.pth")
        {}
    """
    state = read_weights(path)
    loss: State = {}
    with of_file(path):
        if is_ours(state):
            check_ours(state, model.config)
            check_network(stored_network(path), model.config, "stored config")
            check_joints(joints_in(path), model, "stored joints")
        else:
            converted = from_official(state, model.config)
            state, loss = converted.model, converted.loss
    model.load_state_dict(state, strict=True)
    return loss


def check_network(stored: Mapping[str, Any], config: TokenPoseConfig, where: str | Path) -> None:
    """Refuse weights of a network that has other attention than ``config`` in tensors of the same shapes.

    Args:
        stored: The config that was stored with the weights; empty where none was.
        config: That of the model.
        where: What an error calls the weights.

    Raises:
        CheckpointError: The fields that differ are named.
    """
    other = other_network(stored, config, ("heads", "scale", "position", "readouts"))
    if other:
        raise CheckpointError(
            f"{where}: these weights fit in shape but are of another network ({other}), and would predict "
            "something else: take the model by the name they were trained as"
        )


def load_imagenet_backbone(model: TokenPose, path: str | Path) -> None:
    """Load HRNet weights trained on ImageNet (or a whole HRNet pose model's) into a model's backbone.

    What a backbone of three stages does not have is skipped by name: stage 4, the transition to it, the branches that
    stage 3 would hand to it, and the classifier; for the stem, all behind ``layer1``. Everything else must fit.

    Args:
        model: A model with a backbone.
        path: The file.

    Raises:
        CheckpointError: A model without a backbone, tensors missing, unknown or of another shape. The model is then as
            it was.
    """
    if model.config.backbone == "none":
        raise CheckpointError("this model has no backbone to load weights into: its tokens are patches of the image")
    read = {name.removeprefix("backbone."): tensor for name, tensor in read_weights(path).items()}
    skipped = _BEYOND_STAGE_3 + _CLASSIFIER + (_BEYOND_STAGE_1 if model.config.backbone == "stem" else ())
    state = {name: tensor for name, tensor in read.items() if not name.startswith(skipped)}
    own = model.backbone.state_dict()
    # Files from before PyTorch counted batches lack the counters, which nothing in these models reads.
    counters = {name: own[name] for name in own if name.endswith("num_batches_tracked") and name not in state}
    wrong = mismatch(state | counters, {name: tuple(tensor.shape) for name, tensor in own.items()})
    if wrong:
        narrow = model.config.stage1_width != 64
        hint = f"; stage1_width is {model.config.stage1_width}, and HRNet's ImageNet weights need 64" if narrow else ""
        raise CheckpointError(f"{path}: does not fit the backbone {model.config.backbone!r}, {wrong}{hint}")
    model.backbone.load_state_dict(state | counters, strict=True)


def save_pose_weights(model: TokenPose, path: str | Path, name: str | None = None) -> None:
    """Write a model's weights; a safetensors file also says how it is built and which joints it predicts.

    Args:
        model: A pose model, wrapped or not.
        path: ``.safetensors``, ``.pth`` or ``.pt``.
        name: Its name in the registry, to be stored too.

    Raises:
        CheckpointError: Another suffix, or no such folder.

    Example:
        >>> save_pose_weights(model, "claws.safetensors")
        >>> joints_of(load_trained("claws.safetensors")).names
        ('base', 'left_tip', 'right_tip')
    """
    write_weights(model.state_dict(), path, words_of(model, name))
