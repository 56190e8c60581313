"""Cycles that a plug-in moves to other blocks of the same model: one handle, as if they had been wrapped there."""

from __future__ import annotations

import copy

import pytest
import torch

from cycledistill import StackError, unwrap_cyclic, wrap_cyclic
from cycledistill.cycle.wrap import move_cycles
from cycledistill.plugin.install import handle_of
from cycledistill.stack.choose import choose_stack
from tests.toys import FEATURES, ToyViT


def test_moved_cycles_are_those_of_the_other_blocks() -> None:
    plain, x = ToyViT(4), torch.randn(2, 5, FEATURES)
    model = wrap_cyclic(copy.deepcopy(plain), 3)
    handle = handle_of(model, "cyclic")
    move_cycles(model, choose_stack(model, "blocks[2:4]"))
    assert model.cyclic is handle is handle_of(model, "cyclic")
    assert handle.stack.path == "blocks[2:4]"
    got, want = model(x), wrap_cyclic(copy.deepcopy(plain), 3, blocks="blocks[2:4]")(x)
    assert all(torch.equal(a, b) for a, b in zip(got.outputs, want.outputs, strict=True))
    unwrap_cyclic(model)
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    assert handle_of(model, "cyclic") is None


def test_a_refused_move_changes_nothing() -> None:
    plain, x = ToyViT(4), torch.randn(2, 5, FEATURES)
    model = wrap_cyclic(copy.deepcopy(plain), 2)
    want = model(x)
    for parameter in model.blocks[3].parameters():
        parameter.requires_grad_(False)
    with pytest.raises(StackError, match="no parameter of the stack requires gradients"):
        move_cycles(model, choose_stack(model, "blocks[3:4]"))
    assert model.cyclic.stack.path == "blocks"
    assert torch.equal(model(x)[1], want[1])
