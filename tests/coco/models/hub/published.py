"""Small pose models that are published, and their configs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from cycledistill.integrations.coco import TokenPose, create_pose_model

SMALL: dict[str, Any] = {"image_size": (64, 48), "depth": 4, "dim": 32, "heads": 4}


def small(name: str = "sdpose_s_v1", **options: Any) -> TokenPose:
    torch.manual_seed(0)
    return create_pose_model(name, **{**SMALL, **options})


def without_card(folder: Path) -> Path:
    """A folder with a model card in it, which stays: making one means counting what the model costs."""
    folder.mkdir(exist_ok=True)
    (folder / "README.md").touch()
    return folder


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return found


def change(folder: Path, **fields: Any) -> None:
    (folder / "config.json").write_text(json.dumps(config_of(folder) | fields), encoding="utf-8")
