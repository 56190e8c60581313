"""What ``cycledistill export`` has to know of a pose model trained here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from cycledistill.exporter.exportable import PICTURES, Exportable, Sample, drawn_input, files_in
from cycledistill.recipes.weights.checkpoint import find_checkpoint, read_recipe
from cycledistill.recipes.weights.exported import taken_of

from .data.dataset import prepare_images
from .data.pictures import crop_whole
from .trained import load_trained, stored_recipe


def open_run(path: Path, ema: bool = False) -> Exportable | None:
    """The pose model of a run or checkpoint of this integration; ``None`` for another's.

    It takes pictures, each of one person who fills it, as persons are who were cut out.

    Raises:
        CheckpointError: There is no checkpoint in the folder, or it is damaged; ``ema``: it has no average.
    """
    folder = find_checkpoint(path)
    if read_recipe(folder)["command"] != "coco":
        return None
    taken = taken_of(folder, ema)
    recipe, model = stored_recipe(folder), load_trained(folder, ema)
    size = model.config.image_size

    def read(file: Path) -> tuple[Tensor]:
        return (prepare_images(crop_whole(file, size)[None]),)

    def samples(given: Path) -> Sequence[Sample]:
        return [partial(read, file) for file in files_in(given, PICTURES, "picture")]

    return Exportable(
        f"{recipe.model.name}, {taken.named}",
        model,
        (drawn_input(1, 3, *size),),
        samples,
        taken.words,
        blocks="blocks",
        note=taken.note,
    )
