"""``at_exit``: a model answers at another exit inside the context, and as before after it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cycledistill import StackError, at_exit, wrap_cyclic
from tests import toys
from tests.oracle import Truth, assert_same


def wrapped(cycles: int = 2) -> Any:
    return wrap_cyclic(toys.make(), cycles).eval()


def test_inside_it_answers_at_that_exit_and_after_it_as_before() -> None:
    truth, model, (x, _) = Truth(toys.make().eval()), wrapped(), toys.batch()
    want = truth.cycles(3, x)
    for exit in (1, 2):
        model.cyclic.exit = exit
        for number in (1, 2, 3):
            with at_exit(model, number):
                assert model.cyclic.exit == number
                assert_same(model(x), want[number - 1])
            assert model.cyclic.exit == exit
            assert_same(model(x), want[exit - 1])


def test_contexts_are_nested() -> None:
    model = wrapped()
    with at_exit(model, 2):
        with at_exit(model, 3):
            assert model.cyclic.exit == 3
        assert model.cyclic.exit == 2
    assert model.cyclic.exit == 1


def test_an_exception_and_a_setting_inside_leave_nothing_behind() -> None:
    model = wrapped()
    with pytest.raises(RuntimeError, match="stop"), at_exit(model, 2):
        model.cyclic.exit = 5
        raise RuntimeError("stop")
    assert model.cyclic.exit == 1


def test_a_plain_model_has_exit_1_alone() -> None:
    model = toys.make().eval()
    x, _ = toys.batch()
    want = model(x)
    with at_exit(model, 1):
        assert torch.equal(model(x), want)
    for number in (2, 0, -1, 1.0, "1", True, None):
        with pytest.raises(StackError, match=r"ToyViT is wrapped.*wrap_cyclic\(model\) first"), at_exit(model, number):
            pass


@pytest.mark.parametrize("number", [0, -1, 2.0, "2", True, None])
def test_a_number_that_is_no_exit_changes_nothing(number: Any) -> None:
    model = nn.ModuleList([wrapped(), wrapped()])
    for each, exit in zip(model, (2, 3), strict=True):
        each.cyclic.exit = exit
    with pytest.raises(StackError, match="whole number of at least 1"), at_exit(model, number):
        pass
    assert [each.cyclic.exit for each in model] == [2, 3]


class Wrapper(nn.Module):
    """As a data-parallel wrapper, or a larger model, holds the wrapped one."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


@pytest.mark.parametrize("around", [Wrapper, nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_it_finds_the_model_inside_another(around: Any) -> None:
    model, (x, _) = wrapped(), toys.batch()
    outer = around(model)
    with at_exit(outer, 2):
        got = outer(x)
    assert model.cyclic.exit == 1
    model.cyclic.exit = 2
    assert_same(got, model(x), rtol=1e-12)


def test_every_wrapped_model_inside_gets_its_own_exit_back() -> None:
    a, b = wrapped(), copy.deepcopy(wrapped())
    a.cyclic.exit, b.cyclic.exit = 2, 3
    both = nn.ModuleList([a, b])
    with at_exit(both, 4):
        assert a.cyclic.exit == b.cyclic.exit == 4
    assert (a.cyclic.exit, b.cyclic.exit) == (2, 3)


def test_training_runs_all_cycles_whatever_the_exit() -> None:
    model = wrapped(3).train()
    with at_exit(model, 1):
        assert len(model(toys.batch()[0])) == 3
