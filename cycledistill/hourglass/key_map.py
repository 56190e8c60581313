"""The key map of the hourglass's own weights, to the official files of HoT and back. All other keys pass unchanged."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from cycledistill.errors import StackError

KEY_MAP = {
    "prune.0.pos": "pos_embed_token",
    "recover.query": "x_token",
    **{
        f"recover.{ours}.{kind}": f"cross_attention.{theirs}.{kind}"
        for ours, theirs in (("q", "linear_q"), ("k", "linear_k"), ("v", "linear_v"), ("proj", "proj"))
        for kind in ("weight", "bias")
    },
}
"""Our key of each weight -> the official one."""


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the keys of the hourglass's weights in a state dict to the official ones.

    Args:
        state: Of a model wrapped with ``recover=True`` and one prune point; other keys pass unchanged.

    Raises:
        StackError: A weight of the hourglass is missing or unknown; all such keys are given.
    """
    return _map(state, KEY_MAP, ("prune.", "recover."))


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the keys of the hourglass's weights in an official state dict to ours.

    Args:
        state: Other keys pass unchanged, so that the model's own key mapping can go before or after.

    Raises:
        StackError: A weight of the hourglass is missing or unknown; all such keys are given.

    Example:
        >>> model.load_state_dict(from_official(official_weights))
    """
    key_map = {theirs: ours for ours, theirs in KEY_MAP.items()}
    return _map(state, key_map, ("pos_embed_token", "x_token", "cross_attention."))


def _map(state: Mapping[str, Tensor], key_map: Mapping[str, str], own: tuple[str, ...]) -> dict[str, Tensor]:
    missing = [key for key in key_map if key not in state]
    unexpected = [key for key in state if key.startswith(own) and key not in key_map]
    if missing or unexpected:
        raise StackError(
            f"not the weights of an hourglass with one prune point and learned recovery: missing {missing or 'none'}, "
            f"unexpected {unexpected or 'none'}"
        )
    return {key_map.get(key, key): tensor for key, tensor in state.items()}
