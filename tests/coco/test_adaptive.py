"""Adaptive inference on pose models: every pose is that of the fixed exit at which its maps were sure."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("timm")

from cycledistill.adaptive import AdaptiveExit
from cycledistill.integrations.coco import create_pose_model
from tests.adaptive.models import check_rows

SMALL: dict[str, Any] = {"image_size": (64, 48), "depth": 4, "dim": 32, "heads": 4}
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "options"),
    [("sdpose_t", {}), ("sdpose_s_v1", {}), ("sdpose_s_v1", {"prune_layers": (1, 2), "keep": 0.7})],
    ids=["sdpose_t", "sdpose_s_v1", "pruned"],
)
def test_poses_are_those_of_the_fixed_exits(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = create_pose_model(name, **SMALL, **options).double().eval()
    images = torch.randn(6, 3, 64, 48).double()
    with torch.no_grad():
        check_rows(model, images, rtol=1e-9)


def test_maxima_of_heatmaps_say_how_sure_a_pose_is() -> None:
    torch.manual_seed(0)
    model = create_pose_model("sdpose_t", **SMALL)
    for parameter in model.parameters():  # fresh ones are so small that poses hardly differ
        torch.nn.init.normal_(parameter, std=0.05)
    model.eval()
    images = torch.randn(12, 3, 64, 48)
    adaptive = AdaptiveExit(model)
    found = adaptive.calibrate([images], budget=1.02)  # most of this small model is its stem
    assert found.cost <= 1.02 and 0 < found.shares[0] < 1
    with torch.no_grad():
        maps, exits = adaptive(images, return_exits=True)
        sure = maps.flatten(2).amax(2).clamp(0, 1).mean(1)
    assert len(set(exits.tolist())) > 1 and maps.shape == model(images).shape
    assert bool((sure[exits == 1] >= found.threshold[0]).all())
