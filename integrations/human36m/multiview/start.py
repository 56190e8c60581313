"""A multi-view model starts from a single-view PPT that was trained on COCO, as the authors' does."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cycledistill.integrations.coco.weights.key_map import is_ours
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.files import State, of_file, read_weights, stored_network
from cycledistill.recipes.weights.fitting import mismatch

from .config import MultiViewConfig
from .key_map import RAYS, official_name
from .model import MultiViewPPT

COCO_TOKENS = (12, 12, 14, 16, 11, 13, 15, 11, 1, 0, 2, 5, 7, 9, 6, 8, 10)
"""For each of Human3.6M's 17 joints, the COCO keypoint whose token it starts from, as in the authors' code."""

_HEAD, _TABLE, _TOKEN = "mlp_head.", "pos_embedding", "keypoint_token"
_logger = logging.getLogger(__name__)


def start_from_coco(model: MultiViewPPT, path: str | Path, tokens: Sequence[int] = COCO_TOKENS) -> list[str]:
    """Load a single-view PPT-S, trained on COCO, into a multi-view model that is to be trained.

    Backbone, patch embedding and layers are taken as they are, each joint's token from a keypoint of COCO, and of the
    head what has the same shape: all of it, if the heatmaps have the same size. The rest stays as it is in the model,
    fresh after `create_multiview`: the code of rays, what does not fit of the head, and the table of positions, which
    is fixed for each grid of patches.

    Args:
        model: A model of `create_multiview`, wrapped or not.
        path: Weights of ``ppt_s_original``, trained with patches of 4 x 4, at 256 x 256 for the head to fit: a file of
            the COCO integration's ``save_pose_weights``, or of the authors' single-view code.
        tokens: For each of the model's joints a keypoint of the file; default, Human3.6M's from COCO's.

    Returns:
        Names of the weights that are still the model's own, the table aside.

    Raises:
        CheckpointError: A broken file, one with code inside, weights that do not fit, all named, or of a network with
            other attention or positions. The model is then as it was.
        ValueError: Not one token for each of the model's joints.

    Example:
        >>> start_from_coco(create_multiview(), "ppt_s_256.safetensors")
        ['pos_3d_linear.weight', 'pos_3d_linear.bias']

    Source: PPT (ECCV 2022), section 4.3, and its code.
    """
    _check_tokens(tokens, model.config)
    read, own = read_weights(path), model.state_dict()
    ours = {official_name(name, model.config): name for name in own}
    with of_file(path):
        taken = _taken({ours.get(name, name): tensor for name, tensor in read.items()}, own, tokens)
        _check_network(stored_network(path) if is_ours(read) else {"scale": "dim"}, model.config, path)
    model.load_state_dict({**own, **taken}, strict=True)
    return [name for name in own if name not in taken and name != _TABLE]


def _taken(state: State, own: State, tokens: Sequence[int]) -> State:
    """What the model takes of a file's weights, under our names."""
    if any(name.startswith(RAYS) for name in state):
        raise CheckpointError(
            f"it holds {RAYS}*, so it is of a multi-view model already: load_multiview_weights loads it as it is "
            "(`cycledistill convert multiview` without --from-coco)"
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    body = {name: tensor for name, tensor in state.items() if not name.startswith(_HEAD)}
    if _TOKEN in body and body[_TOKEN].ndim == 3:
        held = body[_TOKEN].shape[1]
        if held <= max(tokens):
            raise CheckpointError(f"it holds tokens of {held} keypoints, 0 to {held - 1}; wanted: {max(tokens)}")
        body[_TOKEN] = body[_TOKEN][:, list(tokens)]
    expected = {name: shape for name, shape in shapes.items() if not name.startswith((_HEAD, RAYS))}
    if _TABLE in body and _is_sine(body[_TABLE]):
        expected[_TABLE] = tuple(body[_TABLE].shape)  # of any grid
    wrong = mismatch(body, expected)
    if wrong:
        raise CheckpointError(
            f"these are not weights of a PPT-S that fits this model, {wrong}; take ppt_s_original with patch_size=(4, "
            "4) and the fixed table of positions (files of other code: by the COCO integration's convert first)"
        )
    head = {name: state[name] for name in shapes if name.startswith(_HEAD) and name in state}
    body.pop(_TABLE)
    return body | {name: tensor for name, tensor in head.items() if tuple(tensor.shape) == shapes[name]}


def _is_sine(table: Tensor) -> bool:
    """Whether a table is one of sines and cosines, in pairs, rather than a learned one."""
    if table.ndim != 3 or table.shape[-1] % 2:
        return False
    lengths = table.float().unflatten(-1, (-1, 2)).square().sum(dim=-1)
    return torch.allclose(lengths, torch.ones_like(lengths), atol=1e-2)  # also of a file in half precision


def _check_tokens(tokens: Sequence[int], config: MultiViewConfig) -> None:
    numbers = list(tokens) if isinstance(tokens, (list, tuple, range)) else []
    whole = all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers)
    if len(numbers) != config.num_keypoints or not whole:
        raise ValueError(
            f"tokens={tokens!r}: for each of the model's {config.num_keypoints} joints the number of a keypoint of the "
            "file, from 0, is expected; the default is for Human3.6M's 17"
        )


def _check_network(stored: Mapping[str, Any], config: MultiViewConfig, path: str | Path) -> None:
    """Refuse a network of the same shapes that computes something else; only some files say."""
    scale = stored.get("scale")
    if scale is None:
        _logger.warning(
            "%s does not say how its attention is scaled, and the weights do not show it: they must be those of "
            "ppt_s_original (scale='dim'), as a file of save_pose_weights would say",
            path,
        )
    elif scale != "dim" and not (isinstance(scale, float) and math.isclose(scale, config.dim**-0.5)):
        raise CheckpointError(
            f"its attention has scale={scale!r}, and that of the multi-view model 'dim', so its weights fit in shape "
            "and would compute something else: start from ppt_s_original"
        )
    for name, expected in (("heads", config.heads), ("position", "sine-full"), ("readouts", 1)):
        if stored.get(name, expected) != expected:
            raise CheckpointError(f"it was trained with {name}={stored[name]!r}; this model needs {expected!r}")
