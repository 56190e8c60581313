"""The key map between the authors' multi-view PPT files and our models, strict in every tensor."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cycledistill.integrations.coco.weights.key_map import FORMATS, is_ours
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.files import State
from cycledistill.recipes.weights.fitting import mismatch

from .config import MultiViewConfig
from .model import MultiViewPPT

RAYS = "pos_3d_linear."
_SINGLE_VIEW = FORMATS["ppt-s"]
"""The authors' single-view code, which names the same parts alike."""
PREFIX = _SINGLE_VIEW.tokens


def multiview_names(config: MultiViewConfig) -> dict[str, str]:
    """For each name of a model's ``state_dict()``, in order, that of the authors' code.

    Args:
        config: The model's.

    Raises:
        CheckpointError: A model without the stem, which the authors' code always has.

    Example:
        >>> multiview_names(MultiViewConfig())["blocks.11.attn.qkv.weight"]
        'features.transformer.layers.11.0.fn.to_qkv.weight'
    """
    if config.backbone != "stem":
        raise CheckpointError(
            f'backbone={config.backbone!r}: the authors\' files hold models with backbone="stem" alone'
        )
    return {name: official_name(name, config) for name in multiview_shapes(config)}


def official_name(name: str, config: MultiViewConfig) -> str:
    """The name in the authors' code for one of ours, whichever it is."""
    return PREFIX + name if name.startswith(RAYS) else _SINGLE_VIEW.to_official(name, config.view)


def multiview_shapes(config: MultiViewConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight of a model; no memory is spent on them."""
    with torch.device("meta"):
        return {name: tuple(each.shape) for name, each in MultiViewPPT(config).state_dict().items()}


def multiview_from_official(state: Mapping[str, Tensor], config: MultiViewConfig) -> State:
    """Weights under the names of the authors' code, under ours.

    Args:
        state: Name -> tensor, as `read_weights` returns them.
        config: Of the model they are for.

    Raises:
        CheckpointError: Tensors missing, unknown or of another shape, all of them named; or a file that needs another
            way: weights under our names, or of the single-view PPT.

    Example:
        >>> config = MultiViewConfig()
        >>> MultiViewPPT(config).load_state_dict(multiview_from_official(read_weights("multiview.pth.tar"), config))
        <All keys matched successfully>

    Source: the code of PPT (ECCV 2022), ``multi-view-PPT``.
    """
    if is_ours(state):
        raise CheckpointError(
            "the weights are under this library's names already: load_multiview_weights takes those of a multi-view "
            "model, and start_from_coco (--from-coco) those of a single-view PPT"
        )
    names, shapes = multiview_names(config), multiview_shapes(config)
    _check(state, {theirs: shapes[ours] for ours, theirs in names.items()}, config)
    return {ours: state[theirs] for ours, theirs in names.items()}


def multiview_to_official(state: Mapping[str, Tensor], config: MultiViewConfig) -> State:
    """Weights under our names, under those of the authors' code.

    Args:
        state: ``state_dict()`` of such a model.
        config: The model's.

    Raises:
        CheckpointError: Tensors missing, unknown or of another shape, all of them named; or a model without the
            stem, which the authors' code always has.
    """
    names = multiview_names(config)
    check_multiview(state, config)
    return {theirs: state[ours] for ours, theirs in names.items()}


def check_multiview(state: Mapping[str, Tensor], config: MultiViewConfig) -> None:
    """Refuse weights under our names that are not, tensor by tensor, those of a model of ``config``.

    Raises:
        CheckpointError: Tensors missing, unknown or of another shape, all of them named.
    """
    _check(state, multiview_shapes(config), config)


def _check(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], config: MultiViewConfig) -> None:
    wrong = mismatch(state, shapes)
    if wrong:
        raise CheckpointError(f"the weights are not those of this multi-view PPT, {wrong}{_advice(state, config)}")


def _advice(state: Mapping[str, Tensor], config: MultiViewConfig) -> str:
    held = any(RAYS in name for name in state)
    if held == config.ray_encoding:
        return "; check the model's options (MultiViewConfig)"
    if held:
        return f"; they hold {RAYS}*, the code of rays: build the model with ray_encoding=True"
    return (
        f"; they hold no {RAYS}*, the code of rays, as those of a single-view PPT: start a model from them by "
        "start_from_coco (--from-coco), or build one with ray_encoding=False"
    )
