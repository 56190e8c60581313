"""What another tool puts around a block or its child is run, or refused; without that mend verify finds it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor, nn

pytest.importorskip("timm")

from cycledistill import StackError, wrap_cyclic, wrap_pruning
from cycledistill.cycle.handle import Cyclic
from tests import toys
from tests.prune.oracle import images, vit
from tests.verification.mends import Check, Patch, adapt_by_peft, both, tokens
from tests.verification.results import failed, row


class Adapter(nn.Module):
    """A low-rank term beside a linear layer, as PEFT puts it there."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = layer
        self.down, self.up = nn.Linear(layer.in_features, 2), nn.Linear(2, layer.out_features)
        nn.init.zeros_(self.up.weight)  # which hides the fault until it is trained
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + 20 * self.up(self.down(x))


def adapt_by_hand(model: Any) -> Any:
    for block in model.blocks:
        block.attn.qkv = Adapter(block.attn.qkv).double()
    return model


ADAPTED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "by hand": (adapt_by_hand, "pruning keeps the most attended"),
    "lora": (
        functools.partial(adapt_by_peft, target_modules=["qkv"], r=2, lora_alpha=64),
        "pruning keeps the most attended",
    ),
    "a copy of the MLP": (
        functools.partial(adapt_by_peft, target_modules=["proj"], modules_to_save=["mlp"]),
        "pruned, eval at one cycle",
    ),
}


@both
@pytest.mark.slow
@pytest.mark.parametrize("kind", ADAPTED)
def test_scores_are_of_the_attention_that_is_computed(
    check: Check, monkeypatch: Patch, kind: str, mended: bool
) -> None:
    if not mended:
        monkeypatch.setattr("cycledistill.prune.modules.are_known", lambda *_: True)
    adapt, claim = ADAPTED[kind]
    result = check(adapt(wrap_pruning(vit(depth=3), (1, 2), 0.6)), images())
    found = row(result, claim)
    assert found.result == ("ok" if mended else "FAILED") and result.ok is mended, result
    if not mended and claim == "pruning keeps the most attended":
        assert "keep other tokens than their attention says" in found.detail


class Speaker(nn.Module):
    """Stands in front of a block, and answers for it when it is asked for an attribute."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._modules["inner"], name)

    def forward(self, *args: Any) -> Tensor:
        return self.inner(*args) * 1.1


@both
@pytest.mark.parametrize("number", [0, 2, 3])
def test_a_wrapper_that_speaks_for_a_block(check: Check, monkeypatch: Patch, number: int, mended: bool) -> None:
    model = wrap_cyclic(toys.ToyViT(4), 2, None, blocks="blocks")
    model.blocks[number] = Speaker(model.blocks[number])
    if mended:
        with pytest.raises(StackError, match="the blocks are not those that were wrapped"):
            model(tokens())
        return
    monkeypatch.setattr(Cyclic, "check_unedited", lambda *_: None)
    result = check(model, tokens())
    assert {"blocks are those that were wrapped", "eval at exit 2", "training, outputs"} <= failed(result)
    if number == 3:  # no other block takes what it returns, so nothing refuses
        difference = row(result, "exit 2").difference
        assert difference is not None and difference > 1e-3


@both
@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_wrapper_that_speaks_for_a_pruned_block(check: Check, monkeypatch: Patch, number: int, mended: bool) -> None:
    model: Any = wrap_pruning(vit(depth=3), (1,), 0.6)
    model.blocks[number] = Speaker(model.blocks[number])
    if mended:
        with pytest.raises(StackError, match="the blocks are not those that were pruned"):
            model(images())
        return
    monkeypatch.setattr("cycledistill.prune.modules._check_unedited", lambda *_: None)
    assert "blocks are those that were wrapped" in failed(check(model, images()))
