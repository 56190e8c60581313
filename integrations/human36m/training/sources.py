"""A recipe's clips, with errors that name the key to change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ..data.clips import Clip, Motion, film
from ..data.cmu import load_cmu
from ..data.h36m import Human36M
from ..data.motion import FRAMES_A_SECOND, generate_motion
from ..errors import LiftingDataError
from ..recipe import DataSection

Splits = tuple[Literal["train", "test"], ...]

CAMERA_SEED = 0
"""Of the made-up cameras and their noise: part of the data, so not of the run."""


FRAME_RATES = {"generated": float(FRAMES_A_SECOND), "cmu": 60.0, "h36m": 50.0}
"""Frames a second of ``data.source``."""


def open_clips(data: DataSection, splits: Splits = ("train", "test")) -> list[list[Clip]]:
    """The clips to train on and to measure on.

    Raises:
        LiftingDataError: Files that are missing or cannot be used; the message names the recipe's key or the file.
    """
    if data.source not in _READERS:
        raise LiftingDataError(f"data.source={data.source!r}: expected one of {', '.join(map(repr, _READERS))}")
    return _READERS[data.source](data, splits)


def _generated(data: DataSection, splits: Splits) -> list[list[Clip]]:
    return [_filmed(data, _made_up(data, split)) for split in splits]


def _made_up(data: DataSection, split: str) -> list[Motion]:
    # one test sequence for every four of training, of other figures
    count, first = (data.sequences, 0) if split == "train" else (max(4, data.sequences // 4), data.sequences)
    return generate_motion(count, data.length, first=first)


def _cmu(data: DataSection, splits: Splits) -> list[list[Clip]]:
    (path,) = _named(data, "motion")
    return [_filmed(data, load_cmu(path, split, shortest=data.frames)) for split in splits]


def _h36m(data: DataSection, splits: Splits) -> list[list[Clip]]:
    pose_3d, pose_2d, cameras = _named(data, "pose_3d", "pose_2d", "cameras")
    files = Human36M(pose_3d, pose_2d, cameras, allow_pickle=data.allow_pickle)
    subjects = {"train": data.train_subjects, "test": data.test_subjects}
    return [files.clips(subjects[split], data.actions, data.confidence) for split in splits]


_READERS: dict[str, Callable[[DataSection, Splits], list[list[Clip]]]] = {
    "generated": _generated,
    "cmu": _cmu,
    "h36m": _h36m,
}
"""``data.source`` -> who reads it."""


def _filmed(data: DataSection, motions: list[Motion]) -> list[Clip]:
    return film(motions, data.views, noise=data.noise, confidence=data.confidence, seed=CAMERA_SEED)


def _named(data: DataSection, *keys: str) -> list[str]:
    """The files under ``keys``, all of which the source needs."""
    files: list[str | None] = [getattr(data, key) for key in keys]
    unset = next((key for key, file in zip(keys, files, strict=True) if file is None), None)
    if unset is not None:
        flags = " and ".join(filter(None, [", ".join(map(_flag, keys[:-1])), _flag(keys[-1])]))
        raise LiftingDataError(
            f"data.{unset} is not set: data.source={data.source!r} needs {flags}; --data generated needs no file"
        )
    return [file for file in files if file is not None]


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"
