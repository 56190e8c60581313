"""Blocks that get no gradients are told of when training starts, and found by verify."""

from __future__ import annotations

import functools
import logging
from typing import Any

import pytest
from torch import Tensor
from torch.utils.checkpoint import checkpoint

pytest.importorskip("timm")

from cycledistill import wrap_cyclic
from cycledistill.cycle.modules import Recorder
from tests import toys
from tests.prune.oracle import images, vit
from tests.verification.mends import Check, Patch, adapt_by_peft, both, tokens
from tests.verification.results import failed, row


def checkpoint_parts(model: Any, reentrant: bool) -> Any:
    """Checkpoint what each block runs, as timm and transformers do from inside."""
    for block in model.blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=reentrant)
    return model


def frozen_in_front(reentrant: bool) -> Any:
    model = toys.ToyViT()
    model.embed.requires_grad_(False)
    model.cls_token.requires_grad_(False)
    return wrap_cyclic(checkpoint_parts(model, reentrant), 2, None, blocks="blocks").train()


@both
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
def test_blocks_that_get_no_gradients(
    check: Check, monkeypatch: Patch, caplog: pytest.LogCaptureFixture, mended: bool
) -> None:
    if not mended:
        monkeypatch.setattr(Recorder, "tell_of_untrained", lambda *_: None)
    model = frozen_in_front(True)
    with caplog.at_level(logging.WARNING):
        model(tokens())
    assert ("are not trained, with cycles or without" in caplog.text) is mended
    result = check(model, tokens())
    assert "what matters gets gradients" in failed(result)
    assert "36 of 40 tensors that ask for gradients get none, as blocks.0" in str(result)
    as_advised = check(frozen_in_front(False), tokens())
    assert as_advised.ok, as_advised


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pytest.mark.parametrize("reentrant", [True, False])
def test_lora_with_checkpointing_and_frozen_embeddings(check: Check, reentrant: bool) -> None:
    adapted = adapt_by_peft(vit(depth=2), target_modules=["qkv"], r=2, modules_to_save=["head"])
    checkpoint_parts(adapted.base_model.model, reentrant)
    result = check(wrap_cyclic(adapted, distill=None, blocks="base_model.model.blocks"), images())
    assert ("what matters gets gradients" in failed(result)) is reentrant, result
    assert result.ok is not reentrant, result


@both
@pytest.mark.slow
def test_a_part_that_was_unloaded(
    check: Check, monkeypatch: Patch, caplog: pytest.LogCaptureFixture, mended: bool
) -> None:
    if not mended:
        monkeypatch.setattr(Recorder, "tell_of_part", lambda *_: None)
    adapted = adapt_by_peft(vit(depth=2), target_modules=["qkv"], r=2)
    part = wrap_cyclic(adapted, distill=None, blocks="base_model.model.blocks").unload().train()
    with caplog.at_level(logging.WARNING):
        assert isinstance(part(images()), Tensor)
    assert ("is a part of the model that wrap_cyclic was given" in caplog.text) is mended
    result = check(part, images())
    assert not result.ok and "it trains one cycle alone" in row(result, "handle").detail
