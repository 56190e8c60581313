"""A recipe's clips, with errors that name the key to change."""

from __future__ import annotations

from typing import Literal

from ..data.clips import Clip, film
from ..data.cmu import load_cmu
from ..data.h36m import Human36M
from ..data.motion import generate_motion
from ..errors import LiftingDataError
from ..recipe import DataSection

CAMERA_SEED = 0
"""Of the made-up cameras and their noise: part of the data, so not of the run."""


def open_clips(data: DataSection, splits: tuple[Literal["train", "test"], ...] = ("train", "test")) -> list[list[Clip]]:
    """The clips to train on and to measure on.

    Raises:
        LiftingDataError: Files that are missing or cannot be used; the message names the recipe's key or the file.
    """
    if data.source == "generated":
        return [_generated(data, split) for split in splits]
    if data.source == "cmu":
        path = _named(data, "motion")
        motions = [load_cmu(path, split, shortest=data.frames) for split in splits]
        return [
            film(found, data.views, noise=data.noise, confidence=data.confidence, seed=CAMERA_SEED) for found in motions
        ]
    pose_3d, pose_2d, cameras = (_named(data, key) for key in ("pose_3d", "pose_2d", "cameras"))
    files = Human36M(pose_3d, pose_2d, cameras, allow_pickle=data.allow_pickle)
    subjects = {"train": data.train_subjects, "test": data.test_subjects}
    return [files.clips(subjects[split], data.actions, data.confidence) for split in splits]


def _generated(data: DataSection, split: str) -> list[Clip]:
    # one test sequence for every four of training, of other figures
    count, first = (data.sequences, 0) if split == "train" else (max(4, data.sequences // 4), data.sequences)
    motions = generate_motion(count, data.length, first=first)
    return film(motions, data.views, noise=data.noise, confidence=data.confidence, seed=CAMERA_SEED)


def _named(data: DataSection, key: str) -> str:
    value: str | None = getattr(data, key)
    if value is None:
        needed = "pose_3d, pose_2d and cameras" if data.source == "h36m" else "motion"
        raise LiftingDataError(
            f"data.{key} is not set: data.source={data.source!r} needs data.{needed}; data.source=generated needs none"
        )
    return value
