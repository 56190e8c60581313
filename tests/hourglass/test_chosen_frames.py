"""Which frames a model keeps: other selections, one's own, an index that is set, and noise."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from cycledistill.hourglass.selection import uniform
from tests.hourglass.models import FRAMES, WIDTH, FrameModel, JointModel, build, poses
from tests.hourglass.oracle import take
from tests.hourglass.wrapped import close, wrap


@pytest.mark.parametrize("select", ["uniform", "motion", "attention"])
@pytest.mark.parametrize("kind", [FrameModel, JointModel])
def test_other_selections(kind: type[nn.Module], select: str) -> None:
    plain, x = build(kind), poses()
    model = wrap(plain, recover=False, select=select, centre=False)
    recorded: list[Tensor] = []
    attention = plain.levels[1].attn if kind is FrameModel else plain.levels[1].temporal.attn
    attention.qkv.register_forward_hook(lambda _, args, output: recorded.append(output))
    state = plain.embed(x)
    for level in plain.levels[:2]:
        state = level(state)
    vectors = state if state.ndim == 3 else state.mean(2)
    if select == "uniform":
        want = uniform(vectors, 5)
    elif select == "motion":
        moved = (vectors[:, 1:] - vectors[:, :-1]).norm(dim=-1)
        want = moved.topk(5).indices.sort().values + 1
    else:
        q, k, _ = recorded[0].unflatten(-1, (3, 2, 4)).unbind(-3)
        weights = torch.einsum("...qhd,...khd->...hqk", q, k).div(2).softmax(-1)
        received = weights.sum((-3, -2))
        want = (received.sum(1) if received.ndim == 3 else received).topk(5).indices.sort().values
    model(x)
    assert torch.equal(model.hourglass.index, want)


def test_a_selection_of_ones_own() -> None:
    plain, x, seen = build(JointModel), poses(), []

    def last(tokens: Tensor, keep: int) -> Tensor:
        seen.append((tuple(tokens.shape), tokens.requires_grad, torch.is_grad_enabled()))
        return torch.arange(tokens.shape[1]).flip(0)[:keep].expand(len(tokens), -1)

    model = wrap(plain, select=last)
    model(x)
    assert model.hourglass.index.tolist() == [[7, 8, 9, 10, 11]] * 2
    assert seen == [((2, FRAMES, 3, WIDTH), False, False)]


def test_an_index_that_is_set_is_used_until_it_is_taken_back() -> None:
    plain, x = build(), poses()
    model = wrap(plain, recover=False)
    assert model.hourglass.index is None
    first = model(x)
    index = model.hourglass.index
    model.hourglass.index = index
    flipped = model(x.flip(-1))
    assert torch.equal(model.hourglass.index, index)
    state = plain.embed(x.flip(-1))
    for level in plain.levels[:2]:
        state = level(state)
    state = take(state, index)
    for level in plain.levels[2:]:
        state = level(state)
    close(flipped, plain.finish(state))
    model.hourglass.index = torch.tensor([[0, 1, 2, 3, 5]])  # for all clips
    model(poses(4))
    assert model.hourglass.index.tolist() == [[0, 1, 2, 3, 5]]
    model.hourglass.index = None
    assert torch.equal(model(x), first)
    twice = wrap(plain, (1, 3), (6, 2), recover=False)
    twice.hourglass.index = (torch.tensor([[0, 2, 4, 5, 8, 9]]), torch.tensor([[4, 9]]))
    out = twice(x)
    state = take(plain.levels[0](plain.embed(x)), torch.tensor([[0, 2, 4, 5, 8, 9]] * 2))
    state = take(plain.levels[2](plain.levels[1](state)), torch.tensor([[2, 5]] * 2))
    close(out, plain.finish(plain.levels[4](plain.levels[3](state))))


def test_noise_is_drawn_once_a_forward_and_may_be_given() -> None:
    plain, x = build(), poses() * 1e-3
    with torch.no_grad():
        plain.pos.zero_()
    model = wrap(plain, noise="uniform", exact=False)
    torch.manual_seed(1)
    model(x)
    first = model.hourglass.index
    model(x)
    assert not torch.equal(model.hourglass.index, first)
    torch.manual_seed(1)
    model.hourglass.noise = torch.rand(2, FRAMES)
    model(x)
    assert torch.equal(model.hourglass.index, first)
    model.hourglass.noise = torch.Generator().manual_seed(1)
    model(x)
    assert torch.equal(model.hourglass.index, first)
    copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert torch.equal(copied(x), model(x))
    model.hourglass.noise = None
    assert torch.equal(model(x), model(x))
