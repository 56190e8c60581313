"""Blocks replaced after wrapping, by modules that look like them: noticed, unless they compute the very same."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointImpl, checkpoint_wrapper

pytest.importorskip("timm")

from cycledistill import StackError, unwrap_cyclic, unwrap_pruning, wrap_cyclic, wrap_pruning
from tests.oracle import Truth, assert_same, assert_same_gradients, gradients
from tests.prune.oracle import images, vit

WHERE = [0, 1, 3]  # first, middle and last; block 1 prunes


class Forwarding(nn.Module):
    """Hands on every attribute of the block inside, and computes more: as adapters and profilers do."""

    def __init__(self, inside: nn.Module, first: bool) -> None:
        super().__init__()
        self.inside, self.first = inside, first
        self.adapter = nn.Linear(24, 24, dtype=torch.float64)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inside"), name)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.inside(self.adapter(x), *args, **kwargs) if self.first else self.adapter(self.inside(x))


class Sharing(nn.Module):
    """Has the very ``__dict__`` of the block inside."""

    def __init__(self, inside: nn.Module, first: bool) -> None:
        self.__dict__ = inside.__dict__
        object.__setattr__(self, "_block", inside)

    def forward(self, x: Tensor) -> Tensor:
        return type(self.__dict__["_block"]).forward(self.__dict__["_block"], x) + 1


class Claiming(Forwarding):
    """Says that it is of the class of the block inside."""

    @property
    def __class__(self) -> type:
        return type(self._modules["inside"]) if "_modules" in vars(self) and self._modules else Claiming

    @__class__.setter
    def __class__(self, given: type) -> None:
        raise TypeError("this class stays")


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("stranger", [Forwarding, Sharing, Claiming], ids=lambda each: each.__name__)
@pytest.mark.parametrize("verb", [wrap_cyclic, lambda model: wrap_pruning(model, (1,))], ids=["cycles", "pruning"])
def test_a_replaced_block_is_noticed(verb: Callable[..., Any], stranger: type, where: int) -> None:
    model = verb(vit()).train()
    model(images())
    model.blocks[where] = stranger(model.blocks[where], first=where == 0)
    with pytest.raises(StackError, match="the blocks are not those that were (wrapped|pruned)"):
        model(images())


@pytest.mark.parametrize("where", WHERE)
def test_it_is_noticed_at_a_later_exit(where: int) -> None:
    model = wrap_cyclic(vit())
    model.cyclic.exit = 2
    model.blocks[where] = Forwarding(model.blocks[where], first=where == 0)
    with pytest.raises(StackError, match="the blocks are not those that were wrapped"):
        model(images())


@pytest.mark.parametrize("where", WHERE)
def test_the_advice_works(where: int) -> None:
    """Unwrap, edit, wrap again: cycles then run what stands around the block as well."""
    model = unwrap_cyclic(wrap_cyclic(vit())).train()
    model.blocks[where] = Forwarding(model.blocks[where], first=where == 0)
    truth = Truth(copy.deepcopy(model), "blocks")
    x = images()
    got = wrap_cyclic(model, blocks="blocks", distill=None)(x)
    assert_same(list(got.outputs), truth.cycles(2, x), rtol=1e-12)
    pruned = unwrap_pruning(wrap_pruning(vit(), (1,)))
    pruned.blocks[where] = Forwarding(pruned.blocks[where], first=where == 0)
    assert pruned(x).shape == (3, 7)


SAME = {
    "checkpointed": lambda block: checkpoint_wrapper(block, CheckpointImpl.NO_REENTRANT),
    "compiled": lambda block: torch.compile(block, backend="eager"),
}


@pytest.mark.parametrize("around", SAME.values(), ids=SAME)
def test_wrappers_of_torch_that_compute_the_same_are_taken(around: Callable[..., Any]) -> None:
    model = vit(depth=2).train()
    x = images()
    truth = Truth(copy.deepcopy(model), "blocks")
    wrap_cyclic(model, distill=None)
    for number, block in enumerate(model.blocks):
        model.blocks[number] = around(block)
    got = model(x)
    expected = truth.cycles(2, x)
    assert_same(list(got.outputs), expected, rtol=1e-12)
    sum(each.square().sum() for each in got.outputs).backward()
    sum(each.square().sum() for each in expected).backward()
    plain = {re.sub(r"_(checkpoint_wrapped_module|orig_mod)\.", "", name): g for name, g in gradients(model).items()}
    assert_same_gradients(plain, truth.gradients(), rtol=1e-10)


def test_a_wrapper_of_torch_that_hides_gradients_is_refused() -> None:
    model = wrap_cyclic(vit()).train()
    for number, block in enumerate(model.blocks):
        model.blocks[number] = checkpoint_wrapper(block, CheckpointImpl.REENTRANT)
    with pytest.raises(StackError, match="use_reentrant=False"):
        model(images())
