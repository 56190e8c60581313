"""Recordings for tests: generated moments as files in a user's form, and a model that knows where the joints are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from cycledistill.integrations.human36m.data.cameras import Camera
from cycledistill.integrations.human36m.multiview.config import MultiViewConfig
from cycledistill.integrations.multiview.data.generated import generate_moments
from cycledistill.integrations.multiview.data.moments import MultiViewSet

SMALL: dict[str, Any] = {
    "image_size": [32, 32], "patch_size": [2, 2], "dim": 16, "depth": 3, "heads": 2, "prune_layers": [1],
    "fused_layers": 1, "stage1_width": 8,
}  # fmt: skip


def opencv(camera: Camera) -> dict[str, Any]:
    """A camera as OpenCV calibrates it, millimetres."""
    inner = np.diag([*camera.focal, 1.0])
    inner[:2, 2] = camera.centre
    return {
        "K": inner.tolist(),
        "R": camera.rotation.T.tolist(),
        "t": (-camera.rotation.T @ camera.position * 1000).tolist(),
        "width": camera.size[0],
        "height": camera.size[1],
    }


def write_recording(folder: Path, moments: MultiViewSet, first: int = 7) -> Path:
    """A calibration, PNG files and 3D labels in millimetres; pictures are numbered from ``first``."""
    cameras: dict[str, Camera] = {}
    for number, moment in enumerate(moments.moments, first):
        for name, view in moment.views.items():
            cameras[name] = view.camera
            (folder / f"cam{name}").mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"cam{name}" / f"take2_{number:04d}.png"), moments.read(view)[..., ::-1])
    (folder / "calibration.json").write_text(json.dumps({f"cam{name}": opencv(one) for name, one in cameras.items()}))
    poses = np.stack([moment.pose for moment in moments.moments if moment.pose is not None]) * 1000
    np.savez(folder / "poses.npz", poses=poses, frames=np.arange(first, first + len(poses)))
    return folder


def some(count: int = 2, cameras: int = 3, size: int = 128) -> MultiViewSet:
    return generate_moments(count, cameras, size)


class Oracle(nn.Module):
    """Heatmaps with a Gaussian where each joint is, looked up by the view's pixels: what a perfect model gives."""

    def __init__(self, config: MultiViewConfig) -> None:
        super().__init__()
        self.config, self.weight = config, nn.Parameter(torch.zeros(()))
        self.known: dict[bytes, Tensor] = {}

    def learn(self, pixels: Tensor, joints: Tensor) -> None:
        """A view (3, h, w), and its joints (J, 2) in pixels of it."""
        self.known[pixels.numpy().tobytes()] = joints

    def forward(self, views: list[Tensor], rays: Any = None, centers: Any = None) -> list[Tensor]:
        return [torch.stack([self._maps(self.known[each.numpy().tobytes()]) for each in view]) for view in views]

    def _maps(self, joints: Tensor) -> Tensor:
        height, width = self.config.heatmap_size
        x, y = torch.arange(width) - joints[:, :1] / 4, torch.arange(height) - joints[:, 1:] / 4
        return torch.exp(-(x[:, None, :] ** 2 + y[:, :, None] ** 2) / (2 * 2.0**2))
