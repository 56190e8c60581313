"""Names of the weights in the authors' files of MixSTE, MotionBERT, MHFormer and of HoT on them, and in ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from cycledistill.hourglass.key_map import OFFICIAL

from ..models.lifter import Lifter
from ..models.mhformer import HYPOTHESES, MHFormer
from ..models.mixste import MixSTE
from ..models.motionbert import MotionBERT

State = dict[str, Tensor]
Renames = tuple[tuple[str, str], ...]

_MIXSTE: Renames = (
    (r"embed_joints\.", "Spatial_patch_to_embedding."),
    (r"spatial_pos", "Spatial_pos_embed"),
    (r"temporal_pos", "Temporal_pos_embed"),
    (r"first\.", "STEblocks.0."),
    (r"levels\.(\d+)\.spatial\.", r"STEblocks.\1."),
    (r"levels\.(\d+)\.temporal\.", r"TTEblocks.\1."),
    (r"spatial_norm\.", "Spatial_norm."),
    (r"temporal_norm\.", "Temporal_norm."),
    (r"head\.", "head."),
)
_MOTIONBERT: Renames = (
    (r"embed_joints\.", "joints_embed."),
    (r"spatial_pos", "pos_embed"),
    (r"temporal_pos", "temp_embed"),
    (r"levels\.(\d+)\.(st|ts)\.", r"blocks_\2.\1."),
    (r"levels\.(\d+)\.fuse\.", r"ts_attn.\1."),
    (r"norm\.", "norm."),
    (r"head\.fc\.", "pre_logits.fc."),
    (r"head\.out\.", "head."),
)
_HYPOTHESIS = "Transformer_hypothesis."


def _mhformer(depth: int) -> Renames:
    each = tuple(
        rename
        for n in range(HYPOTHESES)
        for rename in (
            (rf"stem\.norm\.{n}\.", f"norm_{n + 1}."),
            (rf"stem\.encoder\.{n}\.pos", f"Transformer_encoder_{n + 1}.pos_embed"),
            (rf"stem\.encoder\.{n}\.", f"Transformer_encoder_{n + 1}."),
            (rf"stem\.embed\.{n}\.", f"embedding_{n + 1}."),
        )
    )
    return (
        *each,
        (rf"levels\.{depth - 1}\.", f"{_HYPOTHESIS}CHI_blocks.0."),
        (r"levels\.(\d+)\.", rf"{_HYPOTHESIS}SHR_blocks.\1."),
        (r"norm\.", f"{_HYPOTHESIS}norm."),
        (r"head\.", "regression."),
    )


def official_names(model: Lifter) -> dict[str, tuple[str, ...]]:
    """For each of our names, in order, that of the authors' code; several where ours holds several stacked.

    Args:
        model: A model of `create_lifter`, wrapped or not.

    Raises:
        ValueError: A model that no official file holds, or an hourglass with more than one prune point.

    Example:
        >>> official_names(create_lifter("mixste"))["levels.1.spatial.norm1.weight"]
        ('STEblocks.1.norm1.weight',)
    """
    if isinstance(model, MHFormer):
        renames = _mhformer(model.config.depth)
    elif isinstance(model, (MixSTE, MotionBERT)):
        renames = _MIXSTE if isinstance(model, MixSTE) else _MOTIONBERT
    else:
        raise ValueError(f"{type(model).__name__}: no official code has this model; save its own state_dict() instead")
    return {name: _rename(name, renames) for name in model.state_dict()}


def _rename(name: str, renames: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    if name == "stem.temporal_pos":
        return tuple(f"{_HYPOTHESIS}pos_embed_{n + 1}" for n in range(HYPOTHESES))
    if name in OFFICIAL:
        return (OFFICIAL[name],)
    for ours, theirs in renames:
        found = re.match(ours, name)
        if found is not None:
            return (found.expand(theirs) + name[found.end() :],)
    raise ValueError(f"{name}: the official files have no such weight")


def split(name: str, tensor: Tensor, official: tuple[str, ...]) -> State:
    """One of our tensors as the official ones.

    Args:
        name: Ours.
        tensor: Ours.
        official: Its names in `official_names`.
    """
    if len(official) > 1:
        return dict(zip(official, tensor.unbind(2), strict=True))
    # MHFormer's last norm: ours is over (3, C), the official one over 3 C.
    flat = official[0].startswith(f"{_HYPOTHESIS}norm.")
    return {official[0]: tensor.flatten() if flat else tensor}


def join(tensors: list[Tensor], ours: Mapping[str, Tensor], name: str) -> Tensor:
    """Official tensors as one of ours: the way back of `split`.

    Args:
        tensors: In the order of `official_names`.
        ours: Our ``state_dict()``, for the shape.
        name: Ours.
    """
    if len(tensors) > 1:
        return torch.stack(tensors, dim=2)
    return tensors[0].unflatten(0, ours[name].shape) if ours[name].ndim > tensors[0].ndim else tensors[0]
