"""Lifting models with and without an hourglass on a GPU, eager and compiled, against double precision on the CPU."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tests.gpu.running import every_way, new_step
from tests.gpu.test_pruning import bfloat16_step

pytestmark = pytest.mark.gpu
LIFTERS: dict[str, dict[str, Any]] = {
    "mixste": {"depth": 3},
    "hot_mixste": {"depth": 3, "layer": 1},
    "hot_motionbert": {"depth": 3, "dim_rep": 24},
    "tpc_mixste": {"depth": 3, "layer": 1},
    "tpc_mhformer": {"hidden": 64},
}


@pytest.fixture(params=LIFTERS)
def pair(request: pytest.FixtureRequest, device: torch.device) -> tuple[Any, Any, torch.Tensor]:
    """A lifter in double precision on the CPU, the same in float32 on the GPU, and clips."""
    pytest.importorskip("timm")
    from cycledistill.integrations.human36m import create_lifter

    torch.manual_seed(0)
    options = {"frames": 27, "dim": 32, "heads": 4, **LIFTERS[request.param]}
    exact = create_lifter(request.param, **options)
    with torch.no_grad():
        for parameter in exact.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    exact = exact.double().eval()
    config = exact.config
    return exact, copy.deepcopy(exact).float().to(device), torch.randn(2, config.frames, 17, config.in_channels)


def test_a_lifter(pair: tuple[Any, Any, torch.Tensor], device: torch.device) -> None:
    exact, model, clips = pair
    with torch.no_grad():
        want = exact(clips.double())
        for run in every_way(model, device):
            for _ in range(3):
                new_step(device)
                got = run(clips.to(device)).clone()
            if hasattr(exact, "hourglass"):
                assert torch.equal(model.hourglass.index.cpu(), exact.hourglass.index)
            assert got.shape == want.shape
            assert float((got.cpu().double() - want).abs().max()) <= 1e-3 * float(want.abs().max())
    bfloat16_step(model, clips.to(device))
