"""A block that is replaced after wrapping, by a module around it: the hourglass acts around that one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("timm")

from cycledistill import StackError, wrap_cyclic, wrap_hourglass
from tests.oracle import assert_same, assert_same_gradients, gradients
from tests.prune.oracle import vit


class Clips(nn.Module):
    """Clips (B, 9, 6) -> (B, 9, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.levels, self.norm = nn.Linear(6, 24), vit().blocks, nn.LayerNorm(24)
        self.head = nn.Linear(24, 2)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for level in self.levels:
            x = level(x)
        return self.head(self.norm(x))


class Forwarding(nn.Module):
    """Hands on every attribute of the block inside, and adds something that needs the block's own input."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside
        self.adapter = nn.Linear(24, 24, dtype=torch.float64)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inside"), name)

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(x) + self.adapter(x)


@pytest.mark.parametrize("recover", [False, "linear"])
@pytest.mark.parametrize("where", [0, 2, 3], ids=["first", "middle, at the prune point", "last"])
def test_frames_drop_in_front_of_what_stands_around_a_block(where: int, recover: Any) -> None:
    model, x = Clips().train(), torch.randn(2, 9, 6, dtype=torch.float64)
    around = Forwarding(model.levels[where])
    replaced = copy.deepcopy(model)
    wrap_hourglass(model, layer=2, keep=4, recover=recover)
    model.levels[where] = around
    replaced.levels[where] = plain_of(around)
    wrap_hourglass(replaced, layer=2, keep=4, recover=recover)
    got, expected = model(x), replaced(x)
    assert_same(got, expected, rtol=1e-12)
    got.square().sum().backward()
    expected.square().sum().backward()
    assert_same_gradients(gradients(model), gradients(replaced), rtol=1e-10)


def plain_of(around: Forwarding) -> Forwarding:
    """The same, put around a plain block of the same weights."""
    made = Forwarding(Clips().levels[0])
    made.load_state_dict(around.state_dict())
    return made


@pytest.mark.parametrize("where", [2, 3])
def test_with_cycles_it_is_noticed(where: int) -> None:
    model = wrap_cyclic(wrap_hourglass(Clips(), layer=2, keep=4, recover=False)).train()
    model.levels[where] = Forwarding(model.levels[where])
    with pytest.raises(StackError, match="the blocks are not those that were wrapped"):
        model(torch.randn(2, 9, 6, dtype=torch.float64))
