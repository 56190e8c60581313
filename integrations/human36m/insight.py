"""What the insight report has to know of a lifting model trained here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cycledistill.insight.report import Subject
from cycledistill.plugin.install import handle_of
from cycledistill.recipes.weights.checkpoint import find_checkpoint, read_recipe, recorded_scores

from .data.skeleton import JOINTS
from .data.windows import centred_bounds, log_short, window_frames
from .lift import prepare as prepare_keypoints
from .models.lifter import Lifter
from .models.plugins import STACK
from .trained import load_trained, stored_recipe


def open_checkpoint(path: Path) -> Subject | None:
    """The lifting model of a run or checkpoint of this integration; ``None`` for another's.

    It is shown files of keypoints instead of pictures: COCO's 17 keypoints as ``data/keypoints/files.py`` reads them,
    with the picture's width and height in the file. Of a file, the window around its middle frame is taken, of the
    person who is seen longest.

    Raises:
        CheckpointError: There is no checkpoint in the folder, or it is damaged.
    """
    folder = find_checkpoint(path)
    stored = read_recipe(folder)
    if stored["command"] != "human36m":
        return None
    recipe = stored_recipe(folder)
    model, frames, confidence = load_trained(folder), recipe.data.frames, recipe.data.confidence
    scores = recorded_scores(stored, "mpjpe_frame_mean")

    def prepare(file: Path) -> tuple[Tensor, None]:
        coco = model.convention.coco
        clip = prepare_keypoints(file, person=1, fill=True, confidence=confidence, coco=coco)
        log_short([len(clip)], frames)
        middle = centred_bounds(len(clip), frames)[len(clip) // 2 :][:1]
        places, _ = window_frames(middle, len(clip))
        return torch.from_numpy(np.ascontiguousarray(clip[places])), None

    return Subject(
        name=f"{recipe.model.name}, {folder.parent.parent.name}",
        model=model,
        prepare=prepare,
        grid=None,
        rows=slice(None),
        row_names=(),
        facts={
            "steps": str(stored.get("step", "unknown")),
            "shown": f"{frames} frames around the middle of a file of 2D keypoints",
            **{f"MPJPE at exit {number}": f"{score:.1f} mm" for number, score in scores.items()},
        },
        scores=scores,
        score_name="MPJPE in mm, mean over frames",
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
