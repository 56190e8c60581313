"""Counted work: eval is the base's, a training forward is N stacks and N tails over one stem."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cycledistill import wrap_cyclic

timm = pytest.importorskip("timm")


def flops(model: nn.Module, x: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return counter.get_total_flops()


@pytest.mark.slow
def test_deit_tiny_counts_are_the_published_ones() -> None:
    """2 per multiply-add: 2.507, 4.957 and 7.406 G for 1, 2 and 3 cycles."""
    with torch.device("meta"):
        model = timm.create_model("deit_tiny_patch16_224")
        x = torch.randn(1, 3, 224, 224)
    base = flops(copy.deepcopy(model).eval(), x)
    wrap_cyclic(model, 2, distill=None)
    assert flops(model.eval(), x) == base
    for cycles, giga in ((1, 2.507), (2, 4.957), (3, 7.406)):
        model.train().cyclic.cycles = cycles
        assert flops(model, x) / 1e9 == pytest.approx(giga, abs=6e-4)


@pytest.mark.slow
def test_an_exit_costs_its_stacks_and_one_tail() -> None:
    with torch.device("meta"):
        model = timm.create_model("deit_tiny_patch16_224")
        x = torch.randn(1, 3, 224, 224)
    base = flops(copy.deepcopy(model).eval(), x)
    empty = copy.deepcopy(model)
    empty.blocks = nn.Sequential()
    outside = flops(empty.eval(), x)
    wrap_cyclic(model, 2).eval()
    for k in (1, 2, 3):
        model.cyclic.exit = k
        assert flops(model, x) == outside + k * (base - outside)
