"""Pruned models on a GPU, eager and compiled, against double precision on the CPU; a step of each in bfloat16."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cycledistill import CycleLoss, CycleOutput, wrap_cyclic, wrap_pruning
from tests.gpu.running import every_way, images, new_step, vit
from tests.oracle import assert_same, scramble

pytestmark = pytest.mark.gpu
SMALL = {"image_size": (64, 48), "dim": 48, "depth": 4, "heads": 2}
POSE = {
    "sdpose_s_v1": {},
    "sdpose_s_v1_ppt": {"prune_layers": (1, 2)},
    "ppt_s": {"prune_layers": (1, 2)},
    "sdpose_t": {},
    "sdpose_reg": {},
    "distilpose_s": {},
    "sdpose_b": {},
}


def assert_one_way_of_choosing(model: Any, exact: Any) -> None:
    """The same tokens are kept, else outputs cannot be compared."""
    assert torch.equal(model.pruning.index.cpu(), exact.pruning.index)


def loss_of(output: Any) -> Tensor:
    """A scalar that hangs on every floating-point tensor of an output."""
    leaves = torch.utils._pytree.tree_leaves(output.outputs if isinstance(output, CycleOutput) else output)
    return torch.stack([leaf.float().square().mean() for leaf in leaves if leaf.is_floating_point()]).sum()


def bfloat16_step(model: nn.Module, x: Tensor) -> None:
    """One training step: every gradient it leaves is finite, and there are some."""
    model.train()
    with torch.autocast(x.device.type, torch.bfloat16):
        loss = loss_of(model(x))
    loss.backward()
    found = [p.grad for p in model.parameters() if p.grad is not None]
    assert bool(torch.isfinite(torch.stack([each.float().norm() for each in (loss, *found)])).all())
    assert sum(bool((each != 0).any()) for each in found) > len(found) / 2


@pytest.mark.parametrize("cycles", [1, 2])
def test_a_timm_model(cycles: int, device: torch.device) -> None:
    pytest.importorskip("timm")
    exact = wrap_pruning(vit(torch.device("cpu"), depth=4, num_classes=10).double().eval(), layers=(1, 2), keep=0.6)
    wrap_cyclic(exact, cycles, "exits").cyclic.exit = cycles
    model, (x, target) = copy.deepcopy(exact).float().to(device), images(torch.device("cpu"))
    with torch.no_grad():
        want, on_device = exact(x.double()), x.to(device)
        for run in every_way(model, device):
            for _ in range(3):
                new_step(device)
                got = run(on_device).clone()
            assert_one_way_of_choosing(model, exact)
            assert_same(got.cpu().double(), want, rtol=1e-4)
    model.train()
    with torch.autocast(device.type, torch.bfloat16):
        loss = CycleLoss(nn.CrossEntropyLoss())(model(on_device), target.to(device))
    loss.backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", POSE)
def test_a_pose_model(name: str, device: torch.device) -> None:
    pytest.importorskip("timm")
    from cycledistill.integrations.coco import create_pose_model

    torch.manual_seed(0)
    exact = scramble(create_pose_model(name, **SMALL, **POSE[name]), 0.02).double().eval()
    model, x = copy.deepcopy(exact).float().to(device), torch.randn(2, 3, *SMALL["image_size"])
    with torch.no_grad():
        want, got = exact(x.double()), model(x.to(device))
    if POSE[name]:
        assert_one_way_of_choosing(model, exact)
    assert_same(torch.utils._pytree.tree_map(lambda t: t.cpu().double(), got), want, rtol=1e-3)
    bfloat16_step(model, x.to(device))
