"""What ``cycledistill export`` has to know of a multi-view model trained here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cycledistill.exporter.exportable import Exportable, Sample, drawn_input
from cycledistill.integrations.human36m.multiview.config import MultiViewConfig
from cycledistill.recipes.weights.checkpoint import find_checkpoint, read_recipe
from cycledistill.recipes.weights.exported import taken_of

from .data.layout import joint_words
from .data.samples import MultiViewSamples
from .recipe import DataSection
from .trained import load_trained, stored_recipe
from .training.sources import open_set


def open_run(path: Path, ema: bool = False) -> Exportable | None:
    """The multi-view model of a run or checkpoint of this integration; ``None`` for another's.

    A file takes a fixed number of views: those of ``data.cameras``, else ``data.views``. It is calibrated with the
    moments of a recording (or of Human3.6M, where the run is of that) that have as many.

    Raises:
        CheckpointError: There is no checkpoint in the folder, or it is damaged; ``ema``: it has no average.
    """
    folder = find_checkpoint(path)
    if read_recipe(folder)["command"] != "multiview":
        return None
    taken = taken_of(folder, ema)
    recipe, model = stored_recipe(folder), load_trained(folder, ema)
    data, config = recipe.data, model.config
    views = len(data.cameras or ()) or data.views

    def samples(given: Path) -> Sequence[Sample]:
        moments = open_set(_data(data, given), "test")
        whole = [number for number, moment in enumerate(moments.moments) if len(moment.views) == views]
        if not whole:
            raise ValueError(f"{given}: none of its {len(moments)} moments has {views} views, as the file takes")
        cut = MultiViewSamples(moments, config, data.padding)
        return [partial(_arguments, cut, number) for number in whole]

    return Exportable(
        f"{recipe.model.name}, {taken.named}, {views} views",
        model,
        _inputs(config, views),
        samples,
        {**taken.words, "model": recipe.model.name, "views": json.dumps(views), **joint_words(data.layout)},
        blocks="blocks",
        note=taken.note,
    )


def _data(data: DataSection, given: Path) -> DataSection:
    """The run's data, of a folder instead of its own."""
    if data.source == "human36m":
        return replace(data, root=str(given))
    return replace(data, source="folders", test=str(given))


def _arguments(samples: MultiViewSamples, number: int) -> tuple[Any, ...]:
    """A moment as the model is called with it."""
    (views,) = samples[number]
    if not samples.config.ray_encoding:
        return (list(views.pixels),)
    return list(views.pixels), list(views.rays), list(views.centers)


def _inputs(config: MultiViewConfig, views: int) -> tuple[Any, ...]:
    """Arguments of a call, their values at random."""
    shapes: list[tuple[int, ...]] = [config.view_shape]
    if config.ray_encoding:
        shapes += [(config.grid[0] * config.grid[1], 3), (3,)]
    drawn = [drawn_input(views, 1, *shape) for shape in shapes]
    return tuple(list(each) for each in drawn)
