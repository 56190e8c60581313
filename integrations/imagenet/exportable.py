"""What ``cycledistill export`` has to know of a classifier trained here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from cycledistill.exporter.exportable import PICTURES, Exportable, Sample, drawn_input, files_in
from cycledistill.recipes.errors import DataError
from cycledistill.recipes.reading.guard import PICTURE, reading
from cycledistill.recipes.reading.pixels import to_rgb
from cycledistill.recipes.weights.checkpoint import find_checkpoint, read_recipe
from cycledistill.recipes.weights.exported import taken_of

from .data.augment import eval_transform
from .trained import load_trained, stored_recipe
from .training.build import image_size


def open_run(path: Path, ema: bool = False) -> Exportable | None:
    """The classifier of a run or checkpoint of this integration, which takes pictures; ``None`` for another's.

    Raises:
        CheckpointError: There is no checkpoint in the folder, or it is damaged; ``ema``: it has no average.
    """
    folder = find_checkpoint(path)
    if read_recipe(folder)["command"] != "imagenet":
        return None
    taken = taken_of(folder, ema)
    recipe, model = stored_recipe(folder), load_trained(folder, ema)
    side = image_size(model, recipe)
    transform = eval_transform(recipe.augment, side)

    def read(file: Path) -> tuple[Tensor]:
        from PIL import Image

        with reading(file, PICTURE, DataError), Image.open(file) as image:
            picture = to_rgb(image)
        return (transform(picture)[None],)

    def samples(given: Path) -> Sequence[Sample]:
        return [partial(read, file) for file in files_in(given, PICTURES, "picture")]

    return Exportable(
        f"{recipe.model.name}, {taken.named}",
        model,
        (drawn_input(1, 3, side, side),),
        samples,
        taken.words,
        note=taken.note,
    )
