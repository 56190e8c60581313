"""The calls of a stack's blocks in one forward of the plain model, and which output is which input of the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from cycledistill.plugin.torch_private import tree_flatten, tree_unflatten
from cycledistill.verification.table import Failed, NotChecked

Links = list[tuple[int, int]]
"""Pairs: this leaf of what a block returns is that leaf of what the next one takes."""


@dataclass
class BlockCall:
    """One call of a block: what it was given, as its caller gave it, and what its caller got."""

    block: nn.Module
    taken: list[Any]
    spec: Any
    made: list[Any]
    made_spec: Any

    def again(self, state: dict[int, Any]) -> list[Any]:
        """Run the block once more, with other leaves at the numbers of ``state``; its leaves."""
        leaves = [state.get(number, leaf) for number, leaf in enumerate(self.taken)]
        args, kwargs = tree_unflatten(leaves, self.spec)
        return list(tree_flatten(self.block(*args, **kwargs))[0])


@contextmanager
def listening(blocks: Sequence[nn.Module], calls: list[BlockCall]) -> Iterator[None]:
    """Note the calls of ``blocks`` inside the context: outside their other hooks, which may change values."""
    given: dict[nn.Module, tuple[list[Any], Any]] = {}

    def before(block: nn.Module, args: Any, kwargs: Any) -> None:
        given[block] = tree_flatten((args, dict(kwargs)))

    def after(block: nn.Module, args: Any, output: Any) -> None:
        calls.append(BlockCall(block, *given.pop(block), *tree_flatten(output)))

    with hooks(
        [block.register_forward_pre_hook(before, prepend=True, with_kwargs=True) for block in blocks],
        [block.register_forward_hook(after) for block in blocks],
    ):
        yield


@contextmanager
def hooks(*groups: Sequence[Any]) -> Iterator[None]:
    """Take hooks off at the end of the context."""
    try:
        yield
    finally:
        for handle in (handle for group in groups for handle in group):
            handle.remove()


@contextmanager
def answering(modules: Sequence[nn.Module], answers: Sequence[Any]) -> Iterator[None]:
    """Inside the context these modules compute nothing, and return the values in ``answers``."""
    own = [vars(module).get("forward") for module in modules]
    handles = []
    for module, value in zip(modules, answers, strict=True):
        answer = _constant(value)
        vars(module)["forward"] = answer
        handles.append(module.register_forward_hook(answer))  # after hooks of its own, which have seen the value before
    try:
        with hooks(handles):
            yield
    finally:
        for module, forward in zip(modules, own, strict=True):
            if forward is None:
                del vars(module)["forward"]
            else:
                vars(module)["forward"] = forward


def _constant(value: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: value


def links_of(calls: Sequence[BlockCall], blocks: Sequence[nn.Module]) -> list[Links]:
    """For each block, which leaf of the block before is which of its own arguments; for the first, of the last block.

    Raises:
        NotChecked: Blocks did not run once each, in order.
        Failed: They do not run one on the other's output: no cycles of these blocks are right.
    """
    if not calls:
        raise NotChecked("no block of the stack runs with these inputs: give inputs that reach it")
    if [call.block for call in calls] != list(blocks):
        raise NotChecked("the plain model does not run each block of the stack once, in order")
    found = [
        [
            (i, j)
            for j, leaf in enumerate(here.taken)
            for i, made in enumerate(before.made)
            if isinstance(leaf, Tensor) and leaf is made
        ]
        for before, here in pairwise(calls)
    ]
    if not all(found):
        raise Failed(
            "between two blocks the model makes a new tensor, so cycles, which run a block on what the one before "
            "returned, leave something out, or are refused"
        )
    if not found:
        firsts = (
            next((n for n, leaf in enumerate(leaves) if isinstance(leaf, Tensor)), -1)
            for leaves in (calls[0].made, calls[0].taken)
        )
        found = [[tuple(firsts)]]  # type: ignore[list-item]
    return [found[0], *found] if len(calls) > 1 else found


def state_into(links: Links, made: Sequence[Any]) -> dict[int, Any]:
    """The leaves that a block takes from what the block before returned."""
    return {j: made[i] for i, j in links}
