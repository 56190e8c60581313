"""Half precision on a GPU: autocast, a gradient scaler with clipping, and weights that are half themselves."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from cycledistill import CycleLoss, wrap_cyclic
from tests.gpu.running import images, vit
from tests.oracle import Truth, assert_same, gradients

pytestmark = pytest.mark.gpu
HALVES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_autocast_is_near_float32_and_its_losses_are_float32(dtype: torch.dtype, device: torch.device) -> None:
    pytest.importorskip("timm")
    model, (x, target) = vit(device).train(), images(device)
    truth = Truth(model)
    want = truth.cycles(2, x)
    sum(nn.functional.cross_entropy(each, target) for each in want).backward()
    wrap_cyclic(model, 2, "sdpose")  # its token terms are below what is allowed here
    with torch.autocast(device.type, dtype):
        out = model(x)
        loss = CycleLoss(nn.CrossEntropyLoss())(out, target)
    loss.backward()
    assert {each.dtype for each in out.outputs} == {dtype}
    assert {each.dtype for each in (loss, *out.losses.values())} == {torch.float32}
    assert_same([each.float() for each in out.outputs], want, rtol=0.05)
    got = torch.cat([grad.flatten() for grad in gradients(model).values() if grad is not None])
    true = torch.cat([grad.flatten() for grad in truth.gradients().values() if grad is not None])
    assert got.dtype is torch.float32
    assert float((got - true).norm() / true.norm()) < 0.05


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_training_with_a_scaler_and_clipping_learns(dtype: torch.dtype, device: torch.device) -> None:
    pytest.importorskip("timm")
    model, (x, target) = wrap_cyclic(vit(device).train(), 2, "sdpose"), images(device, 32)
    criterion = CycleLoss(nn.CrossEntropyLoss())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    losses, norms = [], []
    for _ in range(20):
        with torch.autocast(device.type, dtype):
            loss = criterion(model(x), target)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0], losses
    finite = sum(norm < float("inf") for norm in norms)
    assert finite >= 15, f"{20 - finite} of 20 steps were skipped: {norms}"
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_half_weights_in_channels_last_at_exit_2(device: torch.device) -> None:
    pytest.importorskip("timm")
    model, (x, _) = vit(device).eval(), images(device)
    want = Truth(model)(2, x)
    half = copy.deepcopy(wrap_cyclic(model, 2, "exits")).to(torch.bfloat16).to(memory_format=torch.channels_last)
    half.cyclic.exit = 2
    with torch.no_grad():
        got = half(x.bfloat16().contiguous(memory_format=torch.channels_last))
    assert got.dtype is torch.bfloat16
    assert_same(got.float(), want, rtol=0.05)
