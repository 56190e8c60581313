"""Models whose forward does something between the blocks or around them: equal to a hand-written loop, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cycledistill import CycleLoss, StackError, wrap_cyclic


class Mix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Any:
        y = x + torch.tanh(self.a(x))
        return y if skip is None else y + torch.tanh(self.b(skip))


class Model(nn.Module):
    def __init__(self, run: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        self.blocks = nn.ModuleList(Mix() for _ in range(4))
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def unet(model: Any, x: Tensor) -> Tensor:
    return model.head(unet_stack(model, model.embed(x)).mean(1))


def unet_stack(model: Any, x: Tensor) -> Tensor:
    kept = []
    for index, block in enumerate(model.blocks):
        if index < 2:
            x = block(x)
            kept.append(x)
        else:
            x = block(x, kept.pop())
    return x


def test_skips_between_blocks_follow_the_cycle() -> None:
    model = Model(unet)
    x = torch.randn(2, 5, 6)
    first = unet_stack(model, model.embed(x))
    want = [model.head(y.mean(1)) for y in (first, unet_stack(model, first))]
    wrap_cyclic(model, 2, blocks="blocks")
    torch.testing.assert_close(list(model(x).outputs), want, rtol=0, atol=0)
    model.eval()
    model.cyclic.exit = 2
    torch.testing.assert_close(model(x), want[1], rtol=0, atol=0)


def keywords(model: Any, x: Tensor) -> Tensor:
    x = model.embed(x)
    z = 2 * x
    for index, block in enumerate(model.blocks):
        x = block(x=x, skip=z) if index == 0 else block(skip=z, x=x)
    return model.head(x.mean(1))


def test_keywords_in_another_order_are_the_same_arguments() -> None:
    model = Model(keywords)
    x = torch.randn(2, 5, 6)
    state = model.embed(x)
    z = 2 * state
    for _ in range(2):
        for block in model.blocks:
            state = block(x=state, skip=z)
    want = model.head(state.mean(1))
    out = wrap_cyclic(model, 2, blocks="blocks")(x)
    torch.testing.assert_close(out[1], want, rtol=0, atol=0)


def change_embedding(model: Any, x: Tensor) -> Tensor:
    e = model.embed(x)
    e += 1
    for block in model.blocks:
        e = block(e)
    return model.head(e.mean(1))


def change_tokens(model: Any, x: Tensor) -> Tensor:
    e = model.embed(x)
    for block in model.blocks:
        e = block(e)
    e += 1
    return model.head(e.mean(1))


@pytest.mark.parametrize("run", [change_embedding, change_tokens])
def test_in_place_changes_around_the_stack_are_refused(run: Callable[[Any, Tensor], Tensor]) -> None:
    model = wrap_cyclic(Model(run), 2, blocks="blocks")
    with pytest.raises(StackError, match="in place"):
        model(torch.randn(2, 5, 6))


def test_an_in_place_activation_before_the_stack_is_no_such_change() -> None:
    class Stem(Model):
        def __init__(self) -> None:
            super().__init__(lambda model, x: unet(model, model.act(model.first(x))))
            self.first, self.act = nn.Linear(6, 6), nn.ReLU(inplace=True)

    assert len(wrap_cyclic(Stem(), 2, blocks="blocks")(torch.randn(2, 5, 6))) == 2


def test_a_cnn_in_one_container_is_refused_and_its_path_is_taken() -> None:
    layers = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()) for _ in range(4)]
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Sequential(*layers))
    with pytest.raises(StackError, match="no attention stack"):
        wrap_cyclic(model)
    assert len(wrap_cyclic(model, blocks="1")(torch.randn(2, 3, 8, 8))) == 2


@pytest.mark.parametrize("scheme", [lambda out: None, lambda out: torch.zeros(3)])
def test_a_scheme_that_returns_no_scalar_is_named(scheme: Any) -> None:
    model = wrap_cyclic(Model(unet), 2, scheme, blocks="blocks")
    with pytest.raises(ValueError, match="scalar tensor is expected"):
        model(torch.randn(2, 5, 6))


def test_a_task_loss_that_returns_no_scalar_is_named() -> None:
    out = wrap_cyclic(Model(unet), 2, blocks="blocks")(torch.randn(2, 5, 6))
    with pytest.raises(ValueError, match="scalar tensor is expected"):
        CycleLoss(nn.CrossEntropyLoss(reduction="none"))(out, torch.tensor([0, 1]))
