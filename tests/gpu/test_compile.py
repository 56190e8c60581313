"""Compiled on a GPU, by inductor and by ``mode="reduce-overhead"``: training by every preset, exits, schedules."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cycledistill import CycleLoss, Distill, wrap_cyclic
from cycledistill.distill import PRESETS
from tests import toys
from tests.gpu.running import MODES, compiled, images, new_step, toy, toy_batch, vit
from tests.oracle import Truth, assert_same, assert_same_gradients, gradients

pytestmark = pytest.mark.gpu
criterion = CycleLoss(nn.CrossEntropyLoss())


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest, device: torch.device) -> str:
    if request.param != "default" and device.type != "cuda":
        pytest.skip("reduce-overhead replays CUDA graphs; on the CPU it is the default mode")
    return request.param


def check_no_graph_was_given_up() -> None:
    """Inductor goes on without CUDA graphs where it cannot have them, and only counts."""
    assert torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] == 0


@pytest.mark.parametrize("scheme", [name for name in PRESETS if name != "elt"])
def test_training_steps_of_a_preset_equal_eager_ones(scheme: str, mode: str, device: torch.device) -> None:
    x, target = toy_batch(device)
    eager = wrap_cyclic(toy(depth=2).to(device), 2, scheme)
    model = copy.deepcopy(eager)
    step = compiled(lambda x, target: criterion(model(x), target), device, mode)
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.05) for each in (model, eager)]
    losses: list[tuple[float, float]] = []
    for _ in range(5):  # reduce-overhead captures at the second call, and replays from the third
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        new_step(device)
        pair = step(x, target), criterion(eager(x), target)
        for loss in pair:
            loss.backward()
        assert_same_gradients(gradients(model), gradients(eager), rtol=1e-3)
        for optimizer in optimizers:
            optimizer.step()
        losses.append((float(pair[0].detach()), float(pair[1].detach())))
    assert_same(*(torch.tensor(side) for side in zip(*losses, strict=True)), rtol=1e-3)
    assert losses[-1][0] < losses[0][0]
    check_no_graph_was_given_up()


def test_a_random_exit_a_step_is_one_graph(mode: str, device: torch.device) -> None:
    x, target = toy_batch(device)
    eager = wrap_cyclic(toy(depth=2).to(device), 3, "elt")
    model = copy.deepcopy(eager)
    step = compiled(lambda x, target: criterion(model(x), target), device, mode)
    with torch.no_grad():
        possible = torch.stack([criterion(eager(x), target) for _ in range(24)]).aminmax()  # exit 1 or 2 learns
        assert possible.max - possible.min > 1e-3 * possible.max
    drawn = set()
    for _ in range(16):
        model.zero_grad(set_to_none=True)
        new_step(device)
        loss = step(x, target)
        loss.backward()
        apart = (torch.stack(possible) - loss.detach()).abs()
        assert float(apart.min()) < 1e-4 * float(possible.max)
        drawn.add(int(apart.argmin()))
    assert drawn == {0, 1}
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_exits_1_to_3_equal_the_repeated_stack(mode: str, device: torch.device) -> None:
    model, (x, _) = toy(depth=2).eval().to(device), toy_batch(device)
    with torch.no_grad():
        want = Truth(model).cycles(3, x)
        fast = compiled(wrap_cyclic(model, 2, "exits"), device, mode)
        for number in (1, 2, 3, 3, 2, 1, 3, 2, 1):
            model.cyclic.exit = number
            new_step(device)
            assert_same(fast(x).clone(), want[number - 1], rtol=1e-4, what=f"exit {number}")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3
    check_no_graph_was_given_up()


def test_a_schedule_of_weights_is_two_graphs_at_most(device: torch.device) -> None:
    eager = wrap_cyclic(toy(depth=2).to(device), 2, Distill(token_weight=0.01, output_weight=0.5))
    model, (x, target) = copy.deepcopy(eager), toy_batch(device)
    step = compiled(lambda x, target: criterion(model(x), target), device)
    for number in range(1, 7):
        scheme = dataclasses.replace(eager.cyclic.distill, token_weight=0.01 * 2**number, output_weight=0.5 / number)
        model.cyclic.distill = eager.cyclic.distill = scheme
        assert_same(step(x, target), criterion(eager(x), target), rtol=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2


@pytest.mark.parametrize(
    ("cls", "path"), [(toys.TwoStateViT, "blocks"), (toys.NormedViT, "blocks"), (toys.TapViT, "auto")]
)
def test_other_kinds_of_model(cls: type[nn.Module], path: str, device: torch.device) -> None:
    """Two states, BatchNorm, and a head that reads every block: a step, its gradients, and the buffers after it."""
    eager = wrap_cyclic(toy(cls, depth=2).to(device), 2, Distill(token_weight=0.1), blocks=path)
    model, (x, target) = copy.deepcopy(eager), toy_batch(device)
    step = compiled(lambda x, target: criterion(model(x), target), device)
    for _ in range(2):
        for run, owner in ((step, model), (lambda x, target: criterion(eager(x), target), eager)):
            owner.zero_grad()
            run(x, target).backward()
        assert_same_gradients(gradients(model), gradients(eager), rtol=1e-3)
    assert_same(dict(model.named_buffers()), dict(eager.named_buffers()), rtol=1e-4)


def test_a_timm_model_under_autocast(mode: str, device: torch.device) -> None:
    pytest.importorskip("timm")
    eager, (x, target) = wrap_cyclic(vit(device, depth=2).train(), 2, "sdpose"), images(device)
    model = copy.deepcopy(eager)

    def loss_of(model: Any, x: Tensor, target: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return criterion(model(x), target)

    step = compiled(lambda x, target: loss_of(model, x, target), device, mode)
    want = loss_of(eager, x, target)
    want.backward()
    for _ in range(4):
        new_step(device)
        model.zero_grad(set_to_none=True)
        loss = step(x, target)
        loss.backward()
        assert_same(loss, want, rtol=0.02)
        assert_same_gradients(gradients(model), gradients(eager), rtol=0.05)
    check_no_graph_was_given_up()
