"""The parts of a pruned block that choose and keep tokens: what stands at its ``attn.qkv``, ``norm2`` and ``mlp``.

`cycledistill.prune.modules` says what each of them does in a forward. Other tools may put something else in their place
after a model is wrapped (adapters, quantised layers): the block then moves the classes to what stands there now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cycledistill.errors import StackError
from cycledistill.plugin.handle import KINDS, PRUNE_STATE
from cycledistill.plugin.parts import act_in, acts_in, refuse_compiled, submodule
from cycledistill.plugin.rows import put_rows, rows_that_stay, take_rows
from cycledistill.plugin.swap import Swapped
from cycledistill.prune.checks import PART_PATHS, Arguments, check_call, check_parts
from cycledistill.prune.handle import Pruning
from cycledistill.prune.scores import tables_in, token_scores


@dataclass
class PruneState:
    """What a swapped module knows of the pruning; a block shares its state with its ``qkv``, ``norm2`` and ``mlp``."""

    handle: Pruning
    block: int
    """Number of the block."""
    parameters: tuple[str, ...]
    """Names of the block's arguments in the order of its signature."""
    attention: nn.Module | None = None
    """The attention whose numbers the scores are known to be, where the block drops tokens."""
    call: PruneCall | None = None
    """The call of the block that is running, if it drops tokens."""

    def __getstate__(self) -> dict[str, Any]:
        """A copy that is made in the middle of a forward is in none."""
        return {**vars(self), "call": None}


@dataclass
class PruneCall:
    """One call of a block that drops tokens, from its entry to its return.

    ``entered`` tokens come in, ``count`` of the droppable ones are kept: ``local`` are their positions (B, k) among
    the droppable tokens that entered, ``rows`` those of all tokens that stay, as flat rows (B * (first + k),).
    """

    attention: nn.Module
    arguments: dict[str, Any]
    entered: int
    count: int
    qkv: Tensor | None = None
    local: Tensor | None = None
    rows: Tensor | None = None
    mlp_done: bool = False


class PrunedQkv(Swapped):
    """The projection to queries, keys and values: keeps its output for the scores."""

    swap_order = KINDS["pruning"].swap_order

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Project, and keep the result where the block drops tokens."""
        output = super().__call__(*args, **kwargs)  # type: ignore[misc]
        state: PruneState | None = self.__dict__.get(PRUNE_STATE)
        if state is not None and state.call is not None:
            state.call.qkv = output
        return output


class PrunedNorm(Swapped):
    """The norm before the MLP: chooses the kept tokens and normalises these alone."""

    swap_order = KINDS["pruning"].swap_order

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Normalise the kept tokens (B, first + k, C) of ``x`` (B, N, C)."""
        state: PruneState | None = self.__dict__.get(PRUNE_STATE)
        call = state.call if state is not None else None
        if state is None or call is None:
            return super().__call__(x, *args, **kwargs)  # type: ignore[misc]
        if call.qkv is None or call.rows is not None or call.qkv.shape[:2] != x.shape[:2]:
            raise refusal(
                state,
                "does not call attn.qkv once, as a module, on the (B, N, C) tokens that norm2 then receives; attention "
                "in windows, with a functional projection or in parallel with the MLP is not served",
            )
        call.local = _choose(state, call)
        call.rows = rows_that_stay(call.local, state.handle.first, call.entered)
        return super().__call__(take_rows(x, call.rows), *args, **kwargs)  # type: ignore[misc]


class PrunedMlp(Swapped):
    """The MLP: runs on the kept tokens and returns its result among zeros."""

    swap_order = KINDS["pruning"].swap_order

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run on (B, first + k, C), and return (B, N, C)."""
        state: PruneState | None = self.__dict__.get(PRUNE_STATE)
        call = state.call if state is not None else None
        output = super().__call__(*args, **kwargs)  # type: ignore[misc]
        if state is None or call is None:
            return output
        if call.rows is None or call.mlp_done or output.shape[1] != state.handle.first + call.count:
            raise refusal(state, "does not run norm2 directly before mlp, one call each; it cannot be pruned")
        call.mlp_done = True
        return put_rows(output, call.rows, call.entered)


PARTS: dict[str, type[Swapped]] = dict(zip(PART_PATHS, (PrunedQkv, PrunedNorm, PrunedMlp), strict=True))
"""The parts of a block that drops tokens, and the class that each is given."""


def are_known(block: Any, state: PruneState) -> bool:
    """Whether nothing was put around a part of the block, or in its place, since it was looked at."""
    parts = parts_of(block, state)
    return block.attn is state.attention and all(
        acts_in(part, behaviour, PRUNE_STATE, state) for part, behaviour in zip(parts, PARTS.values(), strict=True)
    )


def parts_of(block: nn.Module, state: PruneState) -> list[nn.Module]:
    """What now stands at the paths of `PARTS` in a block."""
    parts = [submodule(block, path) for path in PARTS]
    found = [part for part in parts if part is not None]
    if len(found) != len(parts):
        missing = ", ".join(path for path, part in zip(PARTS, parts, strict=True) if part is None)
        raise refusal(
            state,
            f"has no {missing} any more: another tool put a {type(getattr(block, 'attn', block)).__name__} there after "
            "wrap_pruning, or the block was edited. Undo that, or call unwrap_pruning(model)",
        )
    return found


def move_parts(block: Any, state: PruneState, given: Arguments) -> None:
    """Act in the parts that another tool put in place since, around those that were there or instead of them.

    ``given`` are the arguments of the block's call that is about to run.
    """
    refuse_compiled(f"{state.handle.stack.path}: a part of block {state.block}")
    stack, number = state.handle.stack, state.block
    check_parts(stack, number, block)
    for part, behaviour in zip(parts_of(block, state), PARTS.values(), strict=True):
        act_in(part, behaviour, PRUNE_STATE, state)
    check_call(stack, number, block, state.handle.query, given)
    state.attention = block.attn


def _choose(state: PruneState, call: PruneCall) -> Tensor:
    """Positions (B, k) of the kept tokens among the droppable ones that entered, the highest score first."""
    if call.arguments.get("is_causal"):
        raise refusal(state, "attends causally: its first tokens see none of the others, so they cannot score them")
    assert call.qkv is not None
    tables = tables_in(call.arguments)
    scores = token_scores(call.attention, call.qkv, state.handle.query, state.handle.first, **tables)
    return scores.topk(call.count, dim=1).indices


def refusal(state: PruneState, what: str) -> StackError:
    """A refusal that names the block."""
    return StackError(f'blocks="{state.handle.stack.path}": block {state.block} {what}')
