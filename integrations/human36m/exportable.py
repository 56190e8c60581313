"""What ``cycledistill export`` has to know of a lifting model trained here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cycledistill.exporter.exportable import Exportable, Sample, drawn_input, files_in
from cycledistill.recipes.weights.checkpoint import find_checkpoint, read_recipe
from cycledistill.recipes.weights.exported import taken_of

from .data.keypoints.files import SUFFIXES, read_keypoints
from .data.keypoints.inputs import model_input
from .data.skeleton import JOINTS
from .data.windows import centred_bounds, chunk_bounds, log_short, window_frames
from .lifting.resampling import is_near, resample_keypoints, resampled_length
from .models.lifter import Lifter
from .models.plugins import STACK
from .trained import load_trained, stored_recipe


def open_run(path: Path, ema: bool = False) -> Exportable | None:
    """The lifting model of a run or checkpoint of this integration; ``None`` for another's.

    It takes files of keypoints, with the picture's width and height in the file: of each the person who is seen
    longest, at the rate of the training, in windows as the run's evaluation cuts them.

    Raises:
        CheckpointError: There is no checkpoint in the folder, or it is damaged; ``ema``: it has no average.
    """
    folder = find_checkpoint(path)
    if read_recipe(folder)["command"] != "human36m":
        return None
    taken = taken_of(folder, ema)
    recipe, model = stored_recipe(folder), load_trained(folder, ema)
    frames, bounds = recipe.data.frames, centred_bounds if recipe.evaluate.mode == "centre" else chunk_bounds

    def read(file: Path) -> tuple[Tensor]:
        clip = _clip(file, model)
        log_short([len(clip)], frames)
        places, _ = window_frames(bounds(len(clip), frames), len(clip))
        return (torch.from_numpy(np.ascontiguousarray(clip[places])),)

    def samples(given: Path) -> Sequence[Sample]:
        return [partial(read, file) for file in files_in(given, SUFFIXES, "file of 2D keypoints")]

    name = f"{recipe.model.name}, {taken.named}"
    inputs = 0.3 * drawn_input(1, frames, len(JOINTS), model.config.in_channels)
    return Exportable(name, model, (inputs,), samples, taken.words, STACK, taken.note)


def _clip(file: Path, model: Lifter) -> np.ndarray:
    """A file's keypoints (T, 17, 2 or 3), normalised, at the rate of the model's training."""
    given, convention = read_keypoints(file, person=1), model.convention
    clip = model_input(given, str(file), fill=True, confidence=model.config.in_channels == 3, coco=convention.coco)
    rate, trained = given.frame_rate, convention.frame_rate
    if rate is None or trained is None or is_near(rate, trained):
        return clip
    return resample_keypoints(clip, resampled_length(len(clip), rate, trained))
