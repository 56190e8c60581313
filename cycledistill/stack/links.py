"""What makes blocks a chain: each hands its output, as an object, to the next, and the last fits the first again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cycledistill.errors import ChainError, StackError


@dataclass
class TracedCall:
    """One call of one module: the tensors that went in and came out."""

    inputs: list[torch.Tensor]
    outputs: list[torch.Tensor]


Trace = dict[str, list[TracedCall]]
"""The calls of each traced module, by module name."""

Links = list[tuple[int, int]]
"""Which output tensor (first) is which input tensor (second) of the block that follows."""


def links_between(outputs: list[Any], inputs: list[Any]) -> Links:
    """Pairs (i, j) such that output leaf i of one block is, as an object, input leaf j of the next."""
    return [
        (i, j)
        for i, made in enumerate(outputs)
        if isinstance(made, torch.Tensor)
        for j, taken in enumerate(inputs)
        if taken is made
    ]


def computed_between(made: Sequence[Any], taken: Sequence[Any], links: Links) -> bool:
    """Whether a block takes, beside what is handed on by ``links``, a tensor computed from what earlier blocks made.

    Told by the autograd graph; what was detached cannot be told.
    """
    ends = {leaf.grad_fn for leaf in made if isinstance(leaf, torch.Tensor) and leaf.grad_fn is not None}
    linked = {j for _, j in links}
    beside = [leaf for j, leaf in enumerate(taken) if isinstance(leaf, torch.Tensor) and j not in linked]
    seen: set[Any] = set()
    waiting: list[Any] = [leaf.grad_fn for leaf in beside if not any(leaf is known for known in made)]
    while waiting:
        node = waiting.pop()
        if node in ends:
            return True
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
    return False


def returned(taken: Sequence[Any], made: Sequence[Any]) -> list[Any]:
    """What a block returns that it was not given itself."""
    return [leaf for leaf in made if not any(leaf is given for given in taken)]


def shapes(tensors: Iterable[torch.Tensor]) -> str:
    """``(4, 196, 192) and (4, 1, 192)``: shapes as an error message shows them."""
    return " and ".join(str(tuple(tensor.shape)) for tensor in tensors)


Named = Sequence[tuple[str, nn.Module]]
"""Modules and their names in the model."""


def traced_links(index: int, blocks: Named, trace: Trace) -> Links:
    """The links into block ``index`` from the one before, as far as a trace tells; none where blocks do not chain."""
    before, here = _only_call(index - 1, blocks, trace), _only_call(index, blocks, trace)
    if not before or not here:
        return []
    links = links_between(before.outputs, here.inputs)
    earlier = (call for name, _ in blocks[:index] for call in trace[name])
    made = [leaf for call in earlier for leaf in returned(call.inputs, call.outputs)]
    return [] if computed_between(made, here.inputs, links) else links


def keeps_shape(index: int, group: list[int], blocks: Named, trace: Trace) -> bool:
    """Whether block ``index`` of a ``group`` of neighbours returns its state in the shape that it took."""
    call = _only_call(index, blocks, trace)
    if call is None:
        return False
    links = traced_links(index + 1, blocks, trace) if index < group[-1] else []
    links = links or (traced_links(index, blocks, trace) if index > group[0] else [])
    try:
        return all(call.inputs[j].shape == call.outputs[i].shape for i, j in links)
    except (IndexError, AttributeError):  # the neighbour has another signature: not one run
        return False


def _only_call(index: int, blocks: Named, trace: Trace) -> TracedCall | None:
    calls = trace[blocks[index][0]]
    return calls[0] if len(calls) == 1 else None


def second_run(path: str, network: str, verb: str = "wrap_cyclic") -> StackError:
    """The refusal of blocks that a forward runs several times: with all of ``network``, or alone if that is empty."""
    if not network:
        return StackError(
            f'blocks="{path}": the forward runs these blocks a second time itself, and a plug-in goes with one run. '
            "Let it run them once: a cycle is that repetition, wrap_cyclic(model, cycles=2)"
        )
    return StackError(
        f'blocks="{path}": the forward runs {network} a second time, as models of several crops or of pairs of images '
        f"do, and a plug-in goes with one run. Wrap that part alone, {verb}(model.{network}); with cycles each call of "
        "it then returns a CycleOutput in training. Or call it once, on all images: torch.cat((a, b))"
    )


def check_chain(named: Named, calls: Sequence[list[TracedCall]], path: str) -> None:
    """Refuse blocks that are not called once each, one on the other's output, back to the shape they started from."""
    for (name, _), made in zip(named, calls, strict=True):
        if len(made) != 1:
            raise ChainError(
                f'blocks="{path}": {name} runs {len(made)} times in one forward; every block of a stack must run once'
            )
    chain = [made[0] for made in calls]
    links: Links = []
    for index in range(1, len(chain)):
        found = links_into(path, index, chain[index - 1].outputs, chain[index].inputs)
        made = [leaf for call in chain[:index] for leaf in returned(call.inputs, call.outputs)]
        check_arguments(path, index, made, chain[index].inputs, found)
        links = links or found
    inputs, outputs = chain[0].inputs, chain[-1].outputs
    check_fit(path, inputs, outputs, links or default_links(outputs, inputs, path))


def links_into(path: str, index: int, outputs: list[Any], inputs: list[Any]) -> Links:
    """The links from the outputs of block ``index - 1`` to the inputs of block ``index``; refuses blocks without."""
    links = links_between(outputs, inputs)
    if not links:
        raise ChainError(
            f'blocks="{path}": block {index} does not receive the output of block {index - 1}; something between them '
            "makes a new tensor, so running the blocks again on their own output would skip it"
        )
    return links


def check_arguments(path: str, index: int, made: Sequence[Any], taken: Sequence[Any], links: Links) -> None:
    """Refuse a block that takes something computed from what earlier blocks returned."""
    if computed_between(made, taken, links):
        raise ChainError(
            f'blocks="{path}": block {index} takes something beside its tokens that is computed from blocks before it, '
            "and running the blocks again would keep what cycle 1 had. Compute it inside the block"
        )


def default_links(outputs: Sequence[object], inputs: Sequence[object], path: str) -> Links:
    """Links of a single-module stack: its first output tensor takes the place of its first input tensor.

    Where it returns several tensors, of the shapes of the first it takes, all of them are its state.
    """
    made = [(i, leaf) for i, leaf in enumerate(outputs) if isinstance(leaf, torch.Tensor)]
    taken = [(j, leaf) for j, leaf in enumerate(inputs) if isinstance(leaf, torch.Tensor)]
    if not made or not taken:
        raise StackError(f'blocks="{path}": the module takes or returns no tensor, so it cannot run on its own output')
    pairs = list(zip(made, taken, strict=False))
    alike = len(pairs) == len(made) and all(a.shape == b.shape and a.dtype == b.dtype for (_, a), (_, b) in pairs)
    return [(i, j) for (i, _), (j, _) in (pairs if alike else pairs[:1])]


def check_fit(
    path: str, inputs: Sequence[object], outputs: Sequence[object], links: Links, drops_tokens: bool = False
) -> None:
    """Refuse a stack whose output does not fit its input; fewer tokens fit where a plug-in drops them."""
    states = [leaf for i, j in links for leaf in (inputs[j], outputs[i])]
    other = [leaf for leaf in states if not isinstance(leaf, torch.Tensor)]
    if other:
        raise ChainError(
            f'blocks="{path}": where later blocks take a tensor from the block before, the first block takes, or the '
            f"last returns, {other[0]!r}; a stack needs a tensor there"
        )
    taken: list[torch.Tensor] = [inputs[j] for _, j in links]  # type: ignore[misc]
    made: list[torch.Tensor] = [outputs[i] for i, _ in links]  # type: ignore[misc]
    if any(tensor.is_nested for tensor in (*taken, *made)):
        return
    if not all(
        a.shape == b.shape or (drops_tokens and a[:, :1].shape == b[:, :1].shape)
        for a, b in zip(taken, made, strict=True)
    ):
        raise ChainError(
            f'blocks="{path}": the stack maps {shapes(taken)} to {shapes(made)}; a stack needs equal shapes'
        )
