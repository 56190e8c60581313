"""What the insight report has to know of a classifier trained here."""

from __future__ import annotations

from pathlib import Path

import torch
from timm.data.transforms_factory import create_transform
from torch import Tensor

from cycledistill.insight.report import Subject
from cycledistill.recipes.errors import DataError
from cycledistill.recipes.reading.guard import PICTURE, reading
from cycledistill.recipes.reading.pixels import to_rgb
from cycledistill.recipes.weights.checkpoint import find_checkpoint, read_recipe, recorded_scores

from .trained import load_trained, stored_recipe
from .training.build import image_size


def open_checkpoint(path: Path) -> Subject | None:
    """The classifier of a run or checkpoint of this integration; ``None`` for another's.

    Raises:
        CheckpointError: There is no checkpoint in the folder, or it is damaged.
    """
    folder = find_checkpoint(path)
    stored = read_recipe(folder)
    if stored["command"] != "imagenet":
        return None
    recipe = stored_recipe(folder)
    model = load_trained(folder)
    size, augment = image_size(model, recipe), recipe.augment
    transform = create_transform(size, mean=tuple(augment.mean), std=tuple(augment.std), crop_pct=augment.crop_pct)
    mean, std = torch.tensor(augment.mean), torch.tensor(augment.std)

    def prepare(file: Path) -> tuple[Tensor, Tensor]:
        from PIL import Image

        with reading(file, PICTURE, DataError), Image.open(file) as image:
            picture = to_rgb(image)
        inputs = transform(picture)[None]
        return inputs, (inputs[0].permute(1, 2, 0) * std + mean).clamp(0, 1)

    prefix = int(getattr(model, "num_prefix_tokens", 0))
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    scores = recorded_scores(stored, "top1")
    return Subject(
        name=f"{recipe.model.name}, {folder.parent.parent.name}",
        model=model,
        prepare=prepare,
        grid=tuple(grid) if grid is not None else None,
        rows=slice(0, max(prefix, 1)),
        row_names=("the class token", "the distillation token")[: max(prefix, 1)] if prefix else ("the first token",),
        prefix=prefix if hasattr(model, "num_prefix_tokens") else None,
        facts={
            "steps": str(stored.get("step", "unknown")),
            **{f"top-1 at exit {number}": f"{score:.2f} %" for number, score in scores.items()},
        },
        scores=scores,
        score_name="top-1 accuracy in %",
    )
