"""A refusal that is looked at from all sides, and models that are refused."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

from cycledistill import CycleOutput, StackError, wrap_cyclic
from tests import toys
from tests.oracle import snapshot


class TwoWidths(toys.ToyViT):
    """The second of four blocks widens the tokens."""

    def __init__(self) -> None:
        super().__init__()
        wide = 2 * toys.DIM
        self.blocks = nn.ModuleList(
            [toys.Block(), toys.Block(out=wide), toys.Block(wide), toys.Block(wide)],
        )
        self.norm = nn.LayerNorm(wide)
        self.head = nn.Linear(wide, toys.CLASSES)


class Between(toys.ToyViT):
    """Something sits between block 1 and block 2."""

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for i, block in enumerate(self.blocks):
            x = block(x if i != 2 else x + 1)
        return self.norm(x)


def refused(model: nn.Module, match: str, error: type[Exception] = StackError, **options: Any) -> str:
    """Wraps, expects the refusal, and checks that the model is as it was and still works."""
    before = snapshot(model)
    options = {"cycles": 2, **options}
    with pytest.raises(error, match=match) as caught:
        wrap_cyclic(model, **options)
    assert snapshot(model) == before, "the refusal left the model half wrapped"
    assert not isinstance(getattr(model, "cyclic", None), CycleOutput)
    return str(caught.value)
