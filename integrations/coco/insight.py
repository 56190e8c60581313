"""What the insight report has to know of a pose model trained here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cycledistill.insight.scores import Scores
from cycledistill.insight.subject import Subject
from cycledistill.recipes.weights.checkpoint import find_checkpoint, read_recipe
from cycledistill.recipes.weights.recorded import (
    Recorded,
    check_average,
    recorded_count,
    recorded_facts,
    recorded_intervals,
    recorded_scores,
)

from .data.dataset import prepare_images
from .data.joints import JointSet
from .data.pictures import crop_whole
from .recipe import DataSection
from .trained import load_trained, stored_recipe

SHOWN = ("nose", "left_wrist", "right_knee", "head_top", "right_ankle")
"""Joints whose attention is shown, where the set has them."""


def open_checkpoint(path: Path, ema: bool = False) -> Subject | None:
    """The pose model of a run or checkpoint of this integration; ``None`` for another's.

    Args:
        path: The folder of a run or checkpoint.
        ema: The average of the weights instead of the weights.

    Raises:
        CheckpointError: There is no checkpoint in the folder, it is damaged, or has no average.
    """
    folder = find_checkpoint(path)
    stored = read_recipe(folder)
    if stored["command"] != "coco":
        return None
    recipe = stored_recipe(folder)
    check_average(folder, ema)
    model = load_trained(folder, ema)
    config: Any = model.config
    joints: JointSet = recipe.data.joint_set
    shown = [joints.names.index(name) for name in SHOWN if name in joints.names] or [0]

    def prepare(file: Path) -> tuple[Tensor, Tensor]:
        crop = crop_whole(file, config.image_size)
        return prepare_images(crop[None]), crop.float() / 255

    return Subject(
        name=f"{recipe.model.name}, run {folder.parent.parent.name}",
        model=model,
        prepare=prepare,
        grid=config.grid,
        rows=slice(0, len(joints)),
        row_names=tuple(f"the {joints.names[row].replace('_', ' ')} token" for row in shown),
        row_places=tuple(shown),
        prefix=len(joints),
        facts=recorded_facts(folder, stored, ema)
        | {"data": _data(recipe.data, joints), "pictures shown": "taken whole, as one person"},
        scores=_scores(stored, ema),
        example=torch.zeros(1, 3, *config.image_size),
        blocks="blocks",  # a plain model is not asked which of its stacks is meant
    )


def _scores(stored: Recorded, ema: bool) -> Scores | None:
    values, intervals = recorded_scores(stored, "AP", ema), recorded_intervals(stored, "AP", ema)
    if not values:
        return None
    return Scores(
        name="AP",
        values=values,
        intervals=intervals,
        method="95 %, bootstrap over pictures" if intervals else "none, of few pictures or pictures all alike",
        samples=recorded_count(stored, "images", "pictures", ema),
        digits=3,
    )


def _data(data: DataSection, joints: JointSet) -> str:
    boxes = f"boxes of {Path(data.detections).name}" if data.detections else "annotated boxes"
    train, measured = Path(data.train_annotations).name, Path(data.val_annotations).name
    return f"{train}, {joints.name} joints; measured on {measured}, {boxes}"
