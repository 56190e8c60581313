"""Named groups of tokens: which tokens a distillation weight speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import nn

from cycledistill.errors import StackError

Groups = dict[str, slice]
ALL: Groups = {"all": slice(None)}


def check_groups(groups: Mapping[str, slice]) -> Groups:
    """Refuse what is no dict of slices; the rest can only be checked once the number of tokens is known."""
    if not isinstance(groups, Mapping) or not groups:
        raise StackError(
            f"tokens={groups!r}: a dict of slices is expected, as "
            '{"keypoint": slice(0, 17), "visual": slice(17, None)}'
        )
    for name, group in groups.items():
        bounds = (group.start, group.stop) if isinstance(group, slice) else ("not a slice",)
        whole = all(bound is None or (isinstance(bound, int) and not isinstance(bound, bool)) for bound in bounds)
        if not isinstance(name, str) or not whole or group.step not in (None, 1):
            raise StackError(f"tokens[{name!r}]={group!r}: a slice without a step is expected, as slice(0, 17)")
        if name == "all" and group != slice(None):
            raise StackError('tokens["all"] is the name of the group of all tokens: choose another name')
    return dict(groups)


def fit_groups(groups: Groups, shape: tuple[int, ...]) -> None:
    """Refuse groups that do not fit a state of this shape: not (B, N, C), out of range, empty, or overlapping."""
    if len(shape) != 3:
        raise StackError(
            f"tokens={groups!r}: groups are slices of the token axis of a (B, N, C) state, and this stack's state is "
            f"{tuple(shape)}: leave tokens out, the one group is then 'all'"
        )
    number = shape[1]
    spans = {}
    for name, group in groups.items():
        start, stop = group.start or 0, number if group.stop is None else group.stop
        start, stop = (bound + number if bound < 0 else bound for bound in (start, stop))
        if not 0 <= start < stop <= number:
            raise StackError(f"tokens[{name!r}]={group!r} is empty or out of range: the stack has {number} tokens")
        spans[name] = (start, stop)
    ordered = sorted(spans, key=lambda name: spans[name])
    for first, second in pairwise(ordered):
        if spans[second][0] < spans[first][1]:
            raise StackError(
                f"tokens: {first!r} {spans[first]} and {second!r} {spans[second]} overlap; every token belongs to one "
                "group at most"
            )


def default_groups(model: nn.Module, shape: tuple[int, ...] | None) -> Groups | None:
    """The groups of a model whose user named none: what it declares, prefix and patches, or all tokens as one.

    It declares them by ``token_groups`` (a dict of slices), or by timm's ``num_prefix_tokens`` and ``patch_embed``.
    ``None`` where they can only be told once the shape of the state is known.
    """
    declared = getattr(model, "token_groups", None)
    if declared is not None:
        return check_groups(declared)
    prefix = getattr(model, "num_prefix_tokens", None)
    patches = getattr(getattr(model, "patch_embed", None), "num_patches", None)
    if not isinstance(prefix, int) or prefix < 1 or not isinstance(patches, int):
        return ALL
    if shape is None:
        return None
    if len(shape) != 3 or shape[1] != patches + prefix:
        return ALL  # CaiT, XCiT and TNT declare a prefix that is not in the stack
    return {"prefix": slice(0, prefix), "patch": slice(prefix, None)}


def resolve_groups(model: nn.Module, tokens: torch.Tensor | tuple[torch.Tensor, ...]) -> Groups:
    """The default groups, decided on the tokens of a forward."""
    shape = None if isinstance(tokens, tuple) else tuple(tokens.shape)
    return (default_groups(model, shape) if shape is not None else None) or ALL
