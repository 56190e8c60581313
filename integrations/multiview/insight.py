"""What the insight report has to know of a multi-view model: that it is nothing to show there."""

from __future__ import annotations

from pathlib import Path

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.checkpoint import find_checkpoint, read_recipe


def open_checkpoint(path: Path, ema: bool = False) -> None:
    """Refuse a run or checkpoint of this integration; ``None`` for another's.

    Args:
        path: The folder of a run or checkpoint.
        ema: The average of the weights instead of the weights.

    Raises:
        CheckpointError: It is a multi-view model's; there is no checkpoint in the folder, or it is damaged.
    """
    if read_recipe(find_checkpoint(path))["command"] == "multiview":
        raise CheckpointError(
            f"{path} was trained by `cycledistill train multiview`: its model sees the pictures of several cameras at "
            "once, and insight shows models that see one picture or one clip, those of train coco, human36m and "
            "imagenet. `cycledistill evaluate` measures it at every exit"
        )
