"""What the insight report has to know of a pose model trained here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor

from cycledistill.insight.report import Subject
from cycledistill.recipes.weights.checkpoint import find_checkpoint, read_recipe, recorded_scores

from .data.annotations import box_to_crop
from .data.augment import crop_matrix
from .data.dataset import prepare_images
from .data.joints import JointSet
from .data.pictures import GivenPictures
from .trained import load_trained, stored_recipe

SHOWN = ("nose", "left_wrist", "right_knee", "head_top", "right_ankle")
"""Joints whose attention is shown, where the set has them."""


def open_checkpoint(path: Path) -> Subject | None:
    """The pose model of a run or checkpoint of this integration; ``None`` for another's.

    Raises:
        CheckpointError: There is no checkpoint in the folder, or it is damaged.
    """
    folder = find_checkpoint(path)
    stored = read_recipe(folder)
    if stored["command"] != "coco":
        return None
    recipe = stored_recipe(folder)
    model = load_trained(folder)
    config: Any = model.config
    joints: JointSet = recipe.data.joint_set
    shown = [joints.names.index(name) for name in SHOWN if name in joints.names] or [0]

    scores = recorded_scores(stored, "AP")

    def prepare(file: Path) -> tuple[Tensor, Tensor]:
        pictures = GivenPictures([file])
        pixels = pictures.read("0")
        height, width = pixels.shape[:2]
        center, scale = box_to_crop([0, 0, width, height], config.image_size)
        matrix = crop_matrix(center, scale, 0.0, config.image_size)
        crop = torch.from_numpy(cv2.warpAffine(pixels, matrix, config.image_size[::-1], flags=cv2.INTER_LINEAR))
        return prepare_images(crop[None]), crop.float() / 255

    return Subject(
        name=f"{recipe.model.name}, {folder.parent.parent.name}",
        model=model,
        prepare=prepare,
        grid=config.grid,
        rows=slice(0, len(joints)),
        row_names=tuple(f"the {joints.names[row].replace('_', ' ')} token" for row in shown),
        row_places=tuple(shown),
        prefix=len(joints),
        facts={
            "steps": str(stored.get("step", "unknown")),
            "picture": "taken whole, as one person",
            **{f"AP at exit {number}": f"{score:.3f}" for number, score in scores.items()},
        },
        scores=scores,
        score_name="AP",
        blocks="blocks",  # a plain model is not asked which of its stacks is meant
    )
