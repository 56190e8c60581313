"""On a GPU a wrapped model computes, in float32, what the plain one does with its stack repeated inside it."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from cycledistill import CycleLoss, unwrap_cyclic, wrap_cyclic
from tests.gpu.running import images, toy, toy_batch
from tests.oracle import Truth, assert_differ, assert_same, assert_same_gradients, calm, gradients, scramble

pytestmark = pytest.mark.gpu


class Kind(NamedTuple):
    """A kind of transformer, small."""

    name: str
    options: dict[str, Any] = {"depth": 3}  # noqa: RUF012  (read only)
    side: int = 64
    path: str = "auto"


KINDS = [
    Kind("vit_tiny_patch16_224"),
    Kind("deit_tiny_patch16_224"),
    Kind("deit3_small_patch16_224"),
    Kind("eva02_tiny_patch14_224", side=56),
    Kind("vit_small_patch14_reg4_dinov2", side=56),
    Kind("vit_small_patch16_dinov3"),
    Kind("xcit_nano_12_p16_224"),
    Kind("mixer_s16_224", {}),
    Kind("swin_tiny_patch4_window7_224", {"depths": (1, 1, 3, 1)}, side=112, path="layers.2.blocks"),
]


@pytest.mark.parametrize("cycles", [2, 3])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_outputs_gradients_and_eval_of_a_timm_model(kind: Kind, cycles: int, device: torch.device) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(kind.name, img_size=kind.side, num_classes=10, **kind.options)
    model = scramble(calm(model), scale=0.02).to(device)
    x, target = images(device, 4, kind.side)
    truth = Truth(model, kind.path if kind.path != "auto" else "blocks")
    with torch.no_grad():
        plain = copy.deepcopy(model).eval()(x)
    wrap_cyclic(model, cycles, "exits", blocks=kind.path)
    with torch.no_grad():
        assert_same(model.eval()(x), plain, what="eval")
    out, want = model.train()(x), truth.cycles(cycles, x)
    for number, (got, true) in enumerate(zip(out.outputs, want, strict=True), start=1):
        assert_same(got, true, rtol=2e-4, what=f"cycle {number}")
    assert_differ(out[0], out[1])
    CycleLoss(nn.CrossEntropyLoss())(out, target).backward()
    sum(nn.functional.cross_entropy(each, target) for each in want).backward()
    assert_same_gradients(gradients(model), truth.gradients(), rtol=2e-4)
    with torch.no_grad():
        trained = model.eval()(x)  # BatchNorm has moved
        assert_same(unwrap_cyclic(model)(x), trained, what="unwrapped")


def test_the_gpu_computes_what_the_cpu_does_in_double_precision(device: torch.device) -> None:
    exact, (x, target) = toy().double(), toy_batch(torch.device("cpu"))
    truth = Truth(exact)
    want = truth.cycles(2, x.double())
    sum(nn.functional.cross_entropy(each, target) for each in want).backward()
    model = wrap_cyclic(copy.deepcopy(exact).float(), 2, "exits").to(device)  # wrapped on the CPU, then moved
    out = model(x.to(device))
    CycleLoss(nn.CrossEntropyLoss())(out, target.to(device)).backward()
    assert all(each.device.type == device.type for each in (*out.outputs, *out.tokens))
    assert_same([each.cpu().double() for each in out.outputs], [each.float().double() for each in want], rtol=1e-5)
    on_cpu = {name: grad.cpu().double() for name, grad in gradients(model).items() if grad is not None}
    assert_same_gradients(on_cpu, truth.gradients(), rtol=1e-5)
