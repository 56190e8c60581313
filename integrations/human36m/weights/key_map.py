"""The key map between the authors' files of MixSTE, MotionBERT, MHFormer and HoT and our models, tensor by tensor."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from cycledistill.hourglass.key_map import KEY_MAP
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.fitting import mismatch

from ..models.lifter import Lifter, positions_of
from ..models.mhformer import HYPOTHESES, MHFormer
from ..models.mixste import MixSTE
from ..models.motionbert import MotionBERT

State = dict[str, Tensor]
Renames = tuple[tuple[str, str], ...]
Shapes = Mapping[str, tuple[int, ...]]

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
_OVER_FRAMES = ("temporal_pos", "prune.0.pos", "recover.query")
"""What holds one entry for each frame, or for each kept one."""


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


FORMATS: dict[str, Callable[[Any], Renames]] = {
    "mixste": lambda _: _MIXSTE,
    "mhformer": lambda model: _mhformer(model.config.depth),
    "motionbert": lambda _: _MOTIONBERT,
}
"""The authors' codes, HoT's files being those of the model that it is on: how each calls what ours are called."""


def official_names(model: Lifter) -> dict[str, tuple[str, ...]]:
    """For each of our names, in order, that of the authors' code; several where ours holds several stacked.

    Args:
        model: A model of `create_lifter`, wrapped or not.

    Raises:
        CheckpointError: A model that no official file holds, or an hourglass with more than one prune point.

    Example:
        >>> official_names(create_lifter("mixste"))["levels.1.spatial.norm1.weight"]
        ('STEblocks.1.norm1.weight',)
    """
    renames = FORMATS[format_of(model)](model)
    return {name: _rename(name, renames) for name in model.state_dict()}


def format_of(model: Lifter) -> str:
    """Which of `FORMATS` holds such a model.

    Raises:
        CheckpointError: None does.
    """
    for kind, name in ((MHFormer, "mhformer"), (MixSTE, "mixste"), (MotionBERT, "motionbert")):
        if isinstance(model, kind):
            return name
    raise CheckpointError(
        f"no official code has a {type(model).__name__}: its weights are expected under its own names, those of its "
        "state_dict()"
    )


def _rename(name: str, renames: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    if name == "stem.temporal_pos":
        return tuple(f"{_HYPOTHESIS}pos_embed_{n + 1}" for n in range(HYPOTHESES))
    if name in KEY_MAP:
        return (KEY_MAP[name],)
    for ours, theirs in renames:
        found = re.match(ours, name)
        if found is not None:
            return (found.expand(theirs) + name[found.end() :],)
    raise CheckpointError(f"{name}: the official files have no such weight")


def _split(tensor: Tensor, official: tuple[str, ...]) -> State:
    """One of our tensors as the official ones of these names."""
    if len(official) > 1:
        return dict(zip(official, tensor.unbind(2), strict=True))
    # MHFormer's last norm: ours is over (3, C), the official one over 3 C.
    flat = official[0].startswith(f"{_HYPOTHESIS}norm.")
    return {official[0]: tensor.flatten() if flat else tensor}


def _join(tensors: list[Tensor], like: Tensor) -> Tensor:
    """Official tensors as one of ours, of the shape of ``like``: the way back of `_split`."""
    if len(tensors) > 1:
        return torch.stack(tensors, dim=2)
    return tensors[0].unflatten(0, like.shape) if like.ndim > tensors[0].ndim else tensors[0]


def from_official(state: Mapping[str, Tensor], model: Lifter, resize: bool = False) -> State:
    """Weights under the names of the authors' code, under ours.

    Args:
        state: Name -> tensor, as `read_weights` returns them.
        model: The model they are for; it stays as it is.
        resize: Interpolate tables over frames that were learned for another clip length, linearly along time.

    Raises:
        CheckpointError: Tensors missing, unknown or of another shape, all of them named; tables for another clip length
            without ``resize``, or of a network whose other weights depend on it; a model that no official file holds.

    Example:
        >>> model = create_lifter("mixste", frames=27, dim=32)
        >>> sorted(from_official(to_official(model.state_dict(), model), model)) == sorted(model.state_dict())
        True
    """
    names, ours = official_names(model), model.state_dict()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, tensor in ours.items():
        shapes |= {theirs: tuple(part.shape) for theirs, part in _split(tensor, names[name]).items()}
    tables = [theirs for name in ours if name.endswith(_OVER_FRAMES) for theirs in names[name]]
    state = _fitted(state, shapes, tables, resize and model.resizes, model)
    return {name: _join([state[theirs] for theirs in names[name]], tensor) for name, tensor in ours.items()}


def to_official(state: Mapping[str, Tensor], model: Lifter) -> State:
    """Weights under our names, under those of the authors' code.

    Args:
        state: ``state_dict()`` of such a model.
        model: The model they are of.

    Raises:
        CheckpointError: Tensors missing, unknown or of another shape, all of them named.
        CheckpointError: A model that no official file holds.
    """
    names = official_names(model)
    state = check_ours(state, model)
    theirs: State = {}
    for name, official in names.items():
        theirs |= _split(state[name], official)
    return theirs


def check_ours(state: Mapping[str, Tensor], model: Lifter, resize: bool = False) -> State:
    """Weights under our names that are, tensor by tensor, those of a model; ``resize`` as in `from_official`.

    Raises:
        CheckpointError: Tensors missing, unknown or of another shape, all of them named.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tables = [name for name in shapes if name.endswith(_OVER_FRAMES)]
    return _fitted(state, shapes, tables, resize and model.resizes, model)


def is_ours(state: Mapping[str, Tensor]) -> bool:
    """Whether weights are under our names rather than under official ones."""
    return any(name.startswith("levels.") for name in state)


def _fitted(state: Mapping[str, Tensor], shapes: Shapes, tables: list[str], resize: bool, model: Lifter) -> State:
    """``state`` with its tables resized, if allowed, and nothing missing, unknown or of another shape."""
    off = [name for name in tables if name in state and _is_longer_or_shorter(state[name], shapes[name])]
    if off and not resize:
        told = ", ".join(f"{name} of {state[name].shape[1]} entries, expected {shapes[name][1]}" for name in off)
        can = "pass resize=True (--resize) to interpolate them, or " if model.resizes else ""
        raise CheckpointError(
            f"the weights were learned for another clip length than this {type(model).__name__}'s: {told}; {can}build "
            "the model with frames=... (and keep=...) of the file"
        )
    fitted = {**state, **{name: positions_of(state[name], shapes[name][1], "any") for name in off}}
    wrong = mismatch(fitted, shapes)
    if wrong:
        raise CheckpointError(
            f"the weights are not those of this {type(model).__name__}, {wrong}; check the model's name and options "
            "(list_lifters())"
        )
    return fitted


def _is_longer_or_shorter(tensor: Tensor, expected: tuple[int, ...]) -> bool:
    shape = tuple(tensor.shape)
    return len(shape) == len(expected) and shape[1] != expected[1] and shape[2:] == expected[2:]
