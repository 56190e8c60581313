"""A model that finds the dots of `tests.coco.figures` by their colours, and sources made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

pytest.importorskip("pycocotools")

from cycledistill.integrations.coco.data.dataset import MEAN, STD
from cycledistill.integrations.coco.models.config import TokenPoseConfig
from cycledistill.integrations.coco.models.registry import create_pose_model
from tests.coco.figures import write_dots

Write = Callable[..., Path]


class DotFinder(nn.Module):
    """Each joint's heatmap is high where the picture has the joint's colour: no training, no truth but the pixels."""

    def __init__(self, image_size: tuple[int, int], joints: int = 17) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.config = TokenPoseConfig(num_keypoints=joints, image_size=image_size)
        index = torch.arange(joints)
        self.colours = torch.stack([255 - 12 * index, 40 + 12 * index, torch.full((joints,), 255)], 1).float()  # RGB

    def forward(self, images: Tensor) -> Tensor:
        pixels = (images * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]) * 255
        distance = pixels.square().sum(1, keepdim=True) + self.colours.square().sum(1)[:, None, None]
        distance = distance - 2 * torch.einsum("bchw,kc->bkhw", pixels, self.colours)
        return F.avg_pool2d(torch.exp(-distance / 200), 4)


@pytest.fixture(scope="session")
def finder() -> Any:
    return DotFinder((128, 96)).eval()


@pytest.fixture(scope="session")
def model() -> Any:
    torch.manual_seed(0)
    options = {"backbone": "none", "patch_size": (16, 12), "dim": 16, "depth": 2, "heads": 2, "cycles": 2}
    return create_pose_model("sdpose_s_v1", image_size=(64, 48), **options)


@pytest.fixture(scope="session")
def dots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dots(tmp_path_factory.mktemp("dots") / "set", pictures=3)


@pytest.fixture
def write_video(tmp_path: Path) -> Write:
    """Write RGB frames as a video; by default without loss."""

    def write(frames: Any, name: str = "video.avi", code: str = "FFV1", fps: float = 12.5) -> Path:
        path = tmp_path / name
        height, width = frames[0].shape[:2]
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), fps, (width, height))
        for each in frames:
            writer.write(np.ascontiguousarray(each[..., ::-1]))
        writer.release()
        return path

    return write
