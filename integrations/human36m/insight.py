"""What the insight report has to know of a lifting model trained here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cycledistill.insight.scores import Scores
from cycledistill.insight.subject import Subject
from cycledistill.plugin.install import handle_of
from cycledistill.recipes.weights.checkpoint import find_checkpoint, read_recipe
from cycledistill.recipes.weights.recorded import (
    Recorded,
    check_average,
    recorded_count,
    recorded_facts,
    recorded_intervals,
    recorded_scores,
)

from .data.skeleton import JOINTS
from .data.windows import centred_bounds, log_short, window_frames
from .lift import prepare as prepare_keypoints
from .models.lifter import Lifter
from .models.plugins import STACK
from .recipe import DataSection
from .trained import load_trained, stored_recipe


def open_checkpoint(path: Path, ema: bool = False) -> Subject | None:
    """The lifting model of a run or checkpoint of this integration; ``None`` for another's.

    It is shown files of keypoints instead of pictures: COCO's 17 keypoints as ``data/keypoints/files.py`` reads them,
    with the picture's width and height in the file. Of a file, the window around its middle frame is taken, of the
    person who is seen longest.

    Args:
        path: The folder of a run or checkpoint.
        ema: The average of the weights instead of the weights.

    Raises:
        CheckpointError: There is no checkpoint in the folder, it is damaged, or has no average.
    """
    folder = find_checkpoint(path)
    stored = read_recipe(folder)
    if stored["command"] != "human36m":
        return None
    recipe = stored_recipe(folder)
    check_average(folder, ema)
    model, frames, confidence = load_trained(folder, ema), recipe.data.frames, recipe.data.confidence

    def prepare(file: Path) -> tuple[Tensor, None]:
        coco = model.convention.coco
        clip = prepare_keypoints(file, person=1, fill=True, confidence=confidence, coco=coco)
        log_short([len(clip)], frames)
        middle = centred_bounds(len(clip), frames)[len(clip) // 2 :][:1]
        places, _ = window_frames(middle, len(clip))
        return torch.from_numpy(np.ascontiguousarray(clip[places])), None

    return Subject(
        name=f"{recipe.model.name}, run {folder.parent.parent.name}",
        model=model,
        prepare=prepare,
        grid=None,
        rows=slice(None),
        row_names=(),
        facts=recorded_facts(folder, stored, ema)
        | {"data": _data(recipe.data), "files shown": f"{frames} frames around the middle, of 2D keypoints"},
        scores=_scores(stored, ema),
        example=torch.zeros(1, frames, len(JOINTS), 3 if confidence else 2),
        key_names=_key_names(model, frames),
        blocks=STACK,
    )


def _key_names(model: Lifter, frames: int) -> dict[int, str]:
    """What attention goes over, by the number of its keys."""
    handle = handle_of(model, "hourglass")
    counts = [] if handle is None else [handle.settings.count(i, frames) for i in range(len(handle.layers))]
    names = dict.fromkeys(counts, "kept frames") | {frames: "frames"}
    joints = len(JOINTS)
    return names | {joints: f"{names[joints]} or joints" if joints in names else "joints"}


def _scores(stored: Recorded, ema: bool) -> Scores | None:
    name = "mpjpe_frame_mean"
    values, intervals = recorded_scores(stored, name, ema), recorded_intervals(stored, name, ema)
    if not values:
        return None
    return Scores(
        name="MPJPE (mean over frames)",
        values=values,
        unit="mm",
        intervals=intervals,
        method="95 %, bootstrap over recordings" if intervals else "none, of few recordings or recordings all alike",
        samples=recorded_count(stored, "frames", "frames", ema)
        + f" of {recorded_count(stored, 'recordings', 'recordings', ema)}",
    )


def _data(data: DataSection) -> str:
    if data.source == "h36m":
        return f"h36m: subjects {', '.join(data.train_subjects)}; measured on {', '.join(data.test_subjects)}"
    file = data.motion or data.train_data
    return f"{data.source}{f', {Path(file).name}' if file else ''}"
