"""Training with checkpointed levels and dropout gives the gradients of training without."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cycledistill import wrap_cyclic
from tests.hourglass.models import WIDTH, Checkpointed, FrameModel, JointModel, build, poses
from tests.hourglass.wrapped import gradients, wrap


def test_training_draws_dropout_and_prunes_alike() -> None:
    model, x = wrap(build(drop=0.3)), poses()
    torch.manual_seed(3)
    first = model.train()(x)
    torch.manual_seed(3)
    assert torch.equal(first, model(x))
    assert model.hourglass.index.shape == (2, 5)
    assert first.requires_grad


@pytest.mark.parametrize("settings", [{}, {"recover": "linear", "recover_after": "levels.4"}, {"noise": "uniform"}])
def test_checkpointing_is_exact_also_after_two_forwards(settings: dict[str, Any]) -> None:
    model, first, second = wrap(build(Checkpointed), (1, 3), (8, 3), **settings).train(), poses(), poses()
    results = []
    for saves in (False, True):
        model.saves = saves
        torch.manual_seed(0)
        model.zero_grad()
        outputs = [model(first), model(second)]
        kept = model.hourglass.index
        sum(output.square().sum() for output in outputs).backward()
        assert all(a is b for a, b in zip(model.hourglass.index, kept, strict=True))
        results.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


class Dropping(FrameModel):
    """Levels with dropout, checkpointed or not."""

    saves = False

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.2, batch_first=True)
        self.levels = nn.ModuleList(copy.deepcopy(layer) for _ in range(4))

    run = Checkpointed.run


def random_frames(tokens: Tensor, keep: int) -> Tensor:
    return torch.rand(tokens.shape[:2]).topk(keep, dim=1).indices


@pytest.mark.parametrize("cycles", [1, 2])
@pytest.mark.parametrize("settings", [{"noise": "uniform"}, {"select": random_frames}])
def test_a_random_choice_does_not_shift_dropout_under_checkpointing(settings: dict[str, Any], cycles: int) -> None:
    model, x = wrap(build(Dropping), (1, 2), (8, 3), recover="linear", **settings).train(), poses()
    if cycles > 1:
        wrap_cyclic(model, cycles, None)
    results = []
    for saves in (False, True):
        model.saves = saves
        torch.manual_seed(0)
        model.zero_grad()
        out = model(x)
        sum(each.square().sum() for each in (out.outputs if cycles > 1 else [out])).backward()
        results.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_the_model_as_a_whole_may_be_checkpointed() -> None:
    model, x = wrap(build(JointModel)), poses()
    want = gradients(model, model(x))
    got = gradients(model, checkpoint(model, x, use_reentrant=False))
    assert all(torch.equal(got[name], want[name]) for name in want)
