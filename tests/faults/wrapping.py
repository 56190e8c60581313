"""Arguments of `wrap_cyclic` and paths of stacks: refused with the model as it was, or what a loop by hand gives."""

from __future__ import annotations

import copy
import functools
import re
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from cycledistill import CycleOutput, Distill, StackError, wrap_cyclic
from tests.faults.kinds import ERROR, RIGHT, Kind
from tests.faults.odd import ANY, mostly
from tests.oracle import Truth
from tests.toys import ToyViT, batch, make

DEPTH = 3
STACKS = {"auto": (0, 3), "blocks": (0, 3), "blocks[0:2]": (0, 2), "blocks[1:]": (1, 3), "blocks[:]": (0, 3)}
"""Paths -> the blocks that they name."""


@functools.cache
def plain() -> nn.Module:
    return make(ToyViT, depth=DEPTH)


def by_hand(model: Any, x: Tensor, cycles: int, start: int, stop: int) -> Tensor:
    """What the toy returns after so many cycles of some of its blocks, written out."""
    x = torch.cat([model.cls_token.expand(x.shape[0], -1, -1), model.embed(x)], dim=1)
    blocks = list(model.blocks)
    for block in blocks[:start] + blocks[start:stop] * cycles + blocks[stop:]:
        x = block(x)
    return model.head(model.norm(x)[:, 0])


GROUPS = st.none() | st.dictionaries(
    st.sampled_from(["cls", "patch", "all", "a"]),
    st.builds(slice, *(2 * [st.none() | st.integers(-6, 6)])),
    min_size=1,
    max_size=3,
)
SCHEMES = st.sampled_from(["exits", "sdpose", "elt", "mct", None])
SCHEMES |= st.builds(Distill, token_weight=st.just({"patch": 0.5}) | st.just(0.1), task_weights=st.just((1.0, 0.5)))
ARGUMENTS = mostly(
    {
        "cycles": st.integers(1, 4),
        "distill": SCHEMES,
        "blocks": st.sampled_from(list(STACKS)),
        "tokens": GROUPS,
        "batch_norm": st.sampled_from(["freeze", "update"]),
        "inputs": st.none() | st.just(batch()[0].float()),
    },
    ANY | st.integers(-1, 0),
)


def check_arguments(arguments: dict[str, Any]) -> str:
    model, (x, _) = copy.deepcopy(plain()), batch()
    try:
        wrap_cyclic(model, **arguments)
    except ValueError as refused:  # a StackError is one
        assert str(refused)
        assert type(model) is ToyViT and not hasattr(model, "cyclic")
        assert torch.equal(model(x), plain()(x))
        return ERROR
    start, stop = STACKS[arguments.get("blocks", "auto")]
    cycles = arguments.get("cycles", 2)
    assert type(cycles) is int and 1 <= cycles <= 4
    return check_forward(model, x, [by_hand(plain(), x, each, start, stop) for each in range(1, cycles + 1)])


def check_forward(model: nn.Module, x: Tensor, expected: list[Tensor]) -> str:
    """Training returns each cycle's output; eval the first one's, bit for bit; an exit that of its cycle."""
    model.eval()
    assert torch.equal(model(x), expected[0])
    model.cyclic.exit = len(expected)
    torch.testing.assert_close(model(x), expected[-1], rtol=1e-12, atol=1e-12)
    model.train()
    try:
        out = model(x)
    except ValueError as refused:  # weights for other cycles or groups than there are, say
        assert str(refused)
        return ERROR
    assert isinstance(out, CycleOutput) and len(out) == len(expected)
    for found, each in zip(out.outputs, expected, strict=True):
        torch.testing.assert_close(found, each, rtol=1e-12, atol=1e-12)
    return RIGHT


WORDS = "blocks 0 1 2 3 . .. [ ] : [0:2] [1:] [:2] [1:2] attn mlp norm head -1 embed qkv .1 auto 0x1 None ² ٢".split()
WORDS += [" ", "\n", "", "\0"]
NAMED = ["blocks", "blocks.0", "blocks.1.attn", "blocks.0.mlp", "blocks.2", "auto", "blocks.1.norm1", "head", ""]
PATHS = (
    st.sampled_from(NAMED) | st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map("".join) | st.text(max_size=8)
)
PATHS |= st.builds(
    "{}[{}:{}]".format,
    st.sampled_from(["blocks", "blocks.0.mlp", "blocks.0"]),
    *(2 * [st.integers(-1, 4) | st.just("")]),
)


def check_path(path: str) -> str:
    model, (x, _) = copy.deepcopy(plain()), batch()
    try:
        wrap_cyclic(model, 2, None, blocks=path)
    except ValueError as refused:
        assert str(refused) and type(model) is ToyViT
        return ERROR
    stack = "blocks" if path == "auto" else path
    found = re.fullmatch(r"([a-z0-9_.]+)(?:\[([0-9]*):([0-9]*)\])?", stack)
    assert found is not None, "a path of another form was taken"
    named = model.get_submodule(found[1])
    blocks = list(named.children()) if isinstance(named, (nn.ModuleList, nn.Sequential)) else [named]
    if found[2] is not None:
        blocks = blocks[int(found[2] or 0) : int(found[3] or len(blocks))]
    assert [id(each) for each in model.cyclic.stack.modules(model)] == [id(each) for each in blocks]
    try:
        expected = Truth(plain(), stack).cycles(2, x)
    except RuntimeError:  # blocks that change the shape cannot run twice
        model.train()
        with pytest.raises(StackError):
            model(x)
        return ERROR
    return check_forward(model, x, expected)


WRAPPING = [
    Kind("arguments of wrap_cyclic", ARGUMENTS, check_arguments),
    Kind("paths of stacks", PATHS, check_path),
]
