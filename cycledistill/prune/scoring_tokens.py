"""Which tokens of a model score the others when tokens are dropped."""

from __future__ import annotations

from torch import nn

from cycledistill.errors import StackError
from cycledistill.stack.find import Stack


def resolve_scoring_tokens(model: nn.Module, query: str | slice, stack: Stack) -> tuple[slice, int]:
    """The scoring tokens that ``query`` of ``wrap_pruning`` means, as a slice with whole bounds.

    And the number of tokens in front that are never dropped: these and the prefix. Refuses what leaves none to drop.
    """
    prefix = getattr(model, "num_prefix_tokens", None)
    prefix = prefix if isinstance(prefix, int) else 0
    groups = getattr(model, "token_groups", None) or {}
    if query == "prefix" and "prefix" not in groups:
        query = slice(0, _prefix_in_stack(model, prefix, stack, list(groups)))
    elif isinstance(query, str):
        if query not in groups:
            raise StackError(
                f"query={query!r}: {type(model).__name__} has no such token group, only {list(groups) or 'none'}; name "
                'one of them, "prefix", or give a slice such as slice(0, 17)'
            )
        query = groups[query]
    if not isinstance(query, slice) or query.step not in (None, 1):
        raise StackError(f'query={query!r}: "prefix", a name of a token group, or a slice without a step is expected')
    start, stop = query.start or 0, query.stop
    if not isinstance(stop, int) or not 0 <= start < stop or (stack.shape is not None and stop >= stack.shape[1]):
        tokens = "" if stack.shape is None else f", of {stack.shape[1]} tokens"
        raise StackError(
            f"query={query!r}: scoring tokens stand in front and leave others to drop{tokens}; give a slice with whole "
            "bounds, as slice(0, 17)"
        )
    return slice(start, stop), max(stop, prefix)


def _prefix_in_stack(model: nn.Module, prefix: int, stack: Stack, groups: list[str]) -> int:
    name = type(model).__name__
    if prefix < 1:
        hint = f'; name one of its token groups: query="{groups[0]}"' if groups else ""
        raise StackError(
            f"{name} has no prefix tokens whose attention could score the others{hint}. Pruning needs at least one "
            "scoring token (query=..., a class or keypoint token) in the stack"
        )
    patches = getattr(getattr(model, "patch_embed", None), "num_patches", None)
    if stack.shape is not None and isinstance(patches, int) and stack.shape[1:2] != (patches + prefix,):
        raise StackError(
            f"{name} declares {prefix} prefix tokens and {patches} patches, but the tokens of {stack.path} are "
            f"{stack.shape}: the prefix is not in the stack, so there is no scoring token (query=...)"
        )
    return prefix
