"""The gradients of the parts of a batch add up to those of the batch, which gradient accumulation takes for granted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("timm")
pytest.importorskip("pycocotools")

from cycledistill import wrap_cyclic
from cycledistill.integrations.coco.models.registry import create_pose_model
from cycledistill.integrations.coco.recipe import load_recipe as coco_recipe
from cycledistill.integrations.coco.training.task import PoseTask
from cycledistill.integrations.human36m.models.registry import create_lifter
from cycledistill.integrations.human36m.recipe import load_recipe as human36m_recipe
from cycledistill.integrations.human36m.training.task import LiftTask
from cycledistill.integrations.imagenet.task import CyclicTask

BATCH = 8
Batch = tuple[Tensor, ...]


def classifier() -> tuple[nn.Module, Batch]:
    import timm

    model = timm.create_model("test_vit", img_size=24, patch_size=8, depth=2, num_classes=3)
    task = CyclicTask(model, nn.CrossEntropyLoss(), cycles=2, distill="sdpose", verbose=False)
    return task, (torch.randn(BATCH, 3, 24, 24), torch.randn(BATCH, 3).softmax(-1))


def pose() -> tuple[nn.Module, Batch]:
    options: dict[str, Any] = {"image_size": (64, 32), "patch_size": (4, 4), "dim": 16, "depth": 2, "heads": 2}
    model = create_pose_model("sdpose_s_v1", **options)
    task = PoseTask(model, coco_recipe().loss)
    return task, (torch.randn(BATCH, 3, 64, 32), torch.rand(BATCH, 17, 2) * 30, torch.ones(BATCH, 17))


def lifter() -> tuple[nn.Module, Batch]:
    model = wrap_cyclic(create_lifter("frame_lifter", frames=9, dim=16, depth=2, heads=2, dropout=0.0), 2)
    inside = torch.ones(BATCH, 9, dtype=torch.bool)
    inside[:, 7:] = False  # as many frames count in each part
    return LiftTask(model, human36m_recipe().loss), (torch.randn(BATCH, 9, 17, 2), torch.randn(BATCH, 9, 17, 3), inside)


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("make", [classifier, pose, lifter], ids=lambda make: make.__name__)
def test_parts_of_a_batch_give_the_gradients_of_the_whole(make: Any, parts: int) -> None:
    task, batch = make()
    task.train()
    for module in task.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    task(*batch)["loss"].backward()
    whole = [None if each.grad is None else each.grad.clone() for each in task.parameters()]
    task.zero_grad()
    for part in zip(*(each.chunk(parts) for each in batch), strict=True):
        (task(*part)["loss"] / parts).backward()
    largest = max(float(gradient.abs().max()) for gradient in whole if gradient is not None)
    assert largest > 0
    for (name, parameter), gradient in zip(task.named_parameters(), whole, strict=True):
        if gradient is None:
            assert parameter.grad is None, name
        else:
            assert float((parameter.grad - gradient).abs().max()) <= 1e-5 * largest, name
