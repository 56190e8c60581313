"""Names of the hourglass's own weights in the official files of HoT, and here. The host's weights pass unchanged."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from cycledistill.errors import StackError

OFFICIAL = {
    "prune.0.pos": "pos_embed_token",
    "recover.query": "x_token",
    **{
        f"recover.{ours}.{kind}": f"cross_attention.{theirs}.{kind}"
        for ours, theirs in (("q", "linear_q"), ("k", "linear_k"), ("v", "linear_v"), ("proj", "proj"))
        for kind in ("weight", "bias")
    },
}
"""Our name of each weight -> the official one."""


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the hourglass's weights in a state dict to their official names.

    Args:
        state: Of a model wrapped with ``recover=True`` and one prune point; other entries pass unchanged.

    Raises:
        StackError: A weight of the hourglass is missing or unknown; all such names are given.
    """
    return _rename(state, OFFICIAL, ("prune.", "recover."))


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the hourglass's weights in an official state dict to the names they have here.

    Args:
        state: Other entries pass unchanged, so that the host's own conversion can go before or after.

    Raises:
        StackError: A weight of the hourglass is missing or unknown; all such names are given.

    Example:
        >>> model.load_state_dict(from_official(convert_host(file)))
    """
    renames = {theirs: ours for ours, theirs in OFFICIAL.items()}
    return _rename(state, renames, ("pos_embed_token", "x_token", "cross_attention."))


def _rename(state: Mapping[str, Tensor], renames: Mapping[str, str], own: tuple[str, ...]) -> dict[str, Tensor]:
    missing = [name for name in renames if name not in state]
    unexpected = [name for name in state if name.startswith(own) and name not in renames]
    if missing or unexpected:
        raise StackError(
            f"not the weights of an hourglass with one prune point and learned recovery: missing {missing or 'none'}, "
            f"unexpected {unexpected or 'none'}"
        )
    return {renames.get(name, name): tensor for name, tensor in state.items()}
