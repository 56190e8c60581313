"""What the insight report has to know of a classifier trained here."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from cycledistill.insight.intervals import wilson_interval
from cycledistill.insight.scores import Scores
from cycledistill.insight.subject import Subject
from cycledistill.recipes.errors import DataError
from cycledistill.recipes.reading.guard import PICTURE, reading
from cycledistill.recipes.reading.pixels import to_rgb
from cycledistill.recipes.weights.checkpoint import find_checkpoint, read_recipe
from cycledistill.recipes.weights.recorded import (
    Recorded,
    check_average,
    recorded_count,
    recorded_facts,
    recorded_scores,
)

from .data.augment import eval_transform
from .data.splits import ImageSource
from .trained import load_trained, stored_recipe
from .training.build import image_size


def open_checkpoint(path: Path, ema: bool = False) -> Subject | None:
    """The classifier of a run or checkpoint of this integration; ``None`` for another's.

    Args:
        path: The folder of a run or checkpoint.
        ema: The average of the weights instead of the weights.

    Raises:
        CheckpointError: There is no checkpoint in the folder, it is damaged, or has no average.
    """
    folder = find_checkpoint(path)
    stored = read_recipe(folder)
    if stored["command"] != "imagenet":
        return None
    recipe = stored_recipe(folder)
    check_average(folder, ema)
    model = load_trained(folder, ema)
    size, augment = image_size(model, recipe), recipe.augment
    transform = eval_transform(augment, size)
    mean, std = torch.tensor(augment.mean), torch.tensor(augment.std)

    def prepare(file: Path) -> tuple[Tensor, Tensor]:
        from PIL import Image

        with reading(file, PICTURE, DataError), Image.open(file) as image:
            picture = to_rgb(image)
        inputs = transform(picture)[None]
        return inputs, (inputs[0].permute(1, 2, 0) * std + mean).clamp(0, 1)

    prefix = int(getattr(model, "num_prefix_tokens", 0))
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    return Subject(
        name=f"{recipe.model.name}, run {folder.parent.parent.name}",
        model=model,
        prepare=prepare,
        grid=tuple(grid) if grid is not None else None,
        rows=slice(0, max(prefix, 1)),
        row_names=("the class token", "the distillation token")[: max(prefix, 1)] if prefix else ("the first token",),
        prefix=prefix if hasattr(model, "num_prefix_tokens") else None,
        facts=recorded_facts(folder, stored, ema) | {"data": _data(recipe.data)},
        scores=_scores(stored, ema),
        example=torch.zeros(1, 3, size, size),
    )


def _scores(stored: Recorded, ema: bool) -> Scores | None:
    """Top-1 with intervals, where the run counted its pictures."""
    top1, counts = recorded_scores(stored, "top1", ema), recorded_scores(stored, "images", ema)
    intervals = {}
    for exit, count in counts.items():
        if exit in top1 and count >= 1:
            low, high = wilson_interval(min(top1[exit] / 100, 1) * count, int(count))
            intervals[exit] = (100 * low, 100 * high)
    if not top1:
        return None
    return Scores(
        name="top-1 accuracy",
        values=top1,
        unit="%",
        intervals=intervals,
        method="95 %, Wilson's" if intervals else "none, for the run did not count its pictures",
        samples=recorded_count(stored, "images", "pictures", ema),
        digits=2,
    )


def _data(data: ImageSource) -> str:
    folder = Path(data.dir).name if data.dir else ""
    return f"{' '.join(filter(None, (data.dataset, folder)))}: {data.train_split}, measured on {data.val_split}"
