"""Captured by hand in a CUDA graph: training steps with their optimizer, exits, pruned models, an hourglass.

Each graph is replayed on batches it was not captured with, beside a model that runs eagerly.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cycledistill import CycleLoss, Distill, wrap_cyclic, wrap_hourglass, wrap_pruning
from tests.gpu.running import captured, compiled, images, toy, toy_batch, vit
from tests.hourglass.models import JointModel, awake, build, poses
from tests.oracle import assert_differ, assert_same, assert_same_gradients, gradients

pytestmark = pytest.mark.gpu
criterion = CycleLoss(nn.CrossEntropyLoss())
Step = Callable[[], Any]


def cyclic(device: torch.device, scheme: Any = "sdpose", cycles: int = 2) -> nn.Module:
    return wrap_cyclic(toy(depth=2).to(device), cycles, scheme)


def backward_of(model: nn.Module, loss: Callable[[Any], Tensor]) -> Step:
    """Gradients of None, forward, backward: what a graph of a step holds."""

    def step() -> Tensor:
        model.zero_grad(set_to_none=True)
        value = loss(model)
        value.backward()
        return value

    return step


@pytest.mark.parametrize("how", ["eager", "compiled"])
@pytest.mark.parametrize("scheme", ["sdpose", Distill(token_weight=0.1, output_weight=0.5)], ids=["sdpose", "outputs"])
def test_a_training_step(scheme: Any, how: str, device: torch.device) -> None:
    eager = cyclic(device, scheme)
    model, (x, target) = copy.deepcopy(eager), toy_batch(device)
    loss: Any = lambda model: criterion(model(x), target)  # noqa: E731
    replay = captured(backward_of(model, compiled(loss, device) if how == "compiled" else loss), device)
    losses = []
    for seed in (5, 6, 7):
        for static, new in zip((x, target), toy_batch(device, seed=seed), strict=True):
            static.copy_(new)
        want = backward_of(eager, loss)()
        assert_same(replay(), want, rtol=1e-5)
        assert_same_gradients(gradients(model), gradients(eager), rtol=1e-4)
        losses.append(want.detach().clone())
    assert_differ(losses[0], losses[1])


def test_a_step_with_its_optimizer(device: torch.device) -> None:
    """Forward, backward, clipping and AdamW in one graph, the rate in a tensor, against as many eager steps."""
    models = [cyclic(device), cyclic(device)]
    x, target = toy_batch(device)
    on_gpu = device.type == "cuda"
    rates = [torch.tensor(1e-3, device=device) for _ in models]
    optimizers = [
        torch.optim.AdamW(model.parameters(), lr=rate, capturable=on_gpu, foreach=on_gpu)
        for model, rate in zip(models, rates, strict=True)
    ]

    def step_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
        backward = backward_of(model, lambda model: criterion(model(x), target))

        def step() -> Tensor:
            loss = backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5, foreach=on_gpu)
            optimizer.step()
            return loss

        return step

    eager = step_of(models[1], optimizers[1])
    replay = captured(step_of(models[0], optimizers[0]), device)
    for _ in range(3 if on_gpu else 0):  # as many as capturing warmed up; capturing itself runs nothing
        eager()
    for seed in range(5):
        for static, new in zip((x, target), toy_batch(device, seed=seed), strict=True):
            static.copy_(new)
        for rate in rates:
            rate.fill_(1e-3 / (1 + seed))
        assert_same(replay(), eager(), rtol=1e-4)
    assert_same(dict(models[0].named_parameters()), dict(models[1].named_parameters()), rtol=1e-4)
    assert_differ(dict(models[0].named_parameters()), dict(cyclic(device).named_parameters()))


@pytest.mark.parametrize("exit", [1, 2, 3])
def test_an_exit(exit: int, device: torch.device) -> None:
    model = cyclic(device).eval()
    model.cyclic.exit = exit
    check_eval(model, toy_batch(device)[0], toy_batch(device, seed=9)[0], device)


@pytest.mark.parametrize("cycles", [1, 2])
def test_a_pruned_model(cycles: int, device: torch.device) -> None:
    pytest.importorskip("timm")
    model = wrap_cyclic(wrap_pruning(vit(device), layers=(1,), keep=0.5), cycles, "exits").eval()
    model.cyclic.exit = cycles
    x, target = images(device)
    check_eval(model, x, x.flip(0).roll(1, 2), device)
    check_training(model.train(), x, lambda model: criterion(model(x), target), device)


@pytest.mark.parametrize("cycles", [1, 2])
def test_an_hourglass(cycles: int, device: torch.device) -> None:
    model = awake(wrap_hourglass(build(JointModel), layer=2, keep=5)).float()
    model = wrap_cyclic(model, cycles, "exits").to(device).eval()
    model.cyclic.exit = cycles
    x = poses().float().to(device)
    check_eval(model, x, x.flip(1) + 1, device)
    check_training(model.train(), x, lambda model: sum(each.square().mean() for each in model(x).outputs), device)


def check_eval(model: nn.Module, x: Tensor, other: Tensor, device: torch.device) -> None:
    """Outputs for a batch that the graph was not captured with."""
    with torch.no_grad():
        first, want = model(x).clone(), model(other).clone()
        replay = captured(lambda: model(x), device)
        x.copy_(other)
        assert_same(replay(), want, rtol=1e-5)
        assert_differ(first, want)


def check_training(model: nn.Module, x: Tensor, loss: Callable[[Any], Tensor], device: torch.device) -> None:
    eager = copy.deepcopy(model)
    replay = captured(backward_of(model, loss), device)
    x.copy_(x.roll(1, 1) * 0.7)
    want = backward_of(eager, loss)()
    assert_same(replay(), want, rtol=1e-5)
    assert_same_gradients(gradients(model), gradients(eager), rtol=1e-4)
