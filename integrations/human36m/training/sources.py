"""A recipe's clips, with errors that name the key to change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ..data.clips import Clip, Motion, film
from ..data.cmu import load_cmu
from ..data.h36m import DAMAGED, Human36M
from ..data.motion import FRAMES_A_SECOND, generate_motion
from ..data.mpi_inf_3dhp.files import TEST_SEQUENCES, TRAIN_SEQUENCES, MpiInf3dhp
from ..errors import LiftingDataError
from ..recipe import DataSection
from .leave_out import left_out

Splits = tuple[Literal["train", "test"], ...]
BOTH: Splits = ("train", "test")

CAMERA_SEED = 0
"""Of the made-up cameras and their noise: part of the data, so not of the run."""


FRAME_RATES: dict[str, float | None] = {"generated": float(FRAMES_A_SECOND), "cmu": 60.0, "h36m": 50.0, "3dhp": None}
"""Frames a second of ``data.source``; MPI-INF-3DHP was recorded at 25 and at 50."""


def open_clips(data: DataSection, splits: Splits = BOTH) -> list[list[Clip]]:
    """The clips to train on and to measure on.

    Raises:
        LiftingDataError: Files that are missing or cannot be used; the message names the recipe's key or the file.
    """
    if data.source not in _READERS:
        raise LiftingDataError(f"data.source={data.source!r}: expected one of {', '.join(map(repr, _READERS))}")
    return _READERS[data.source](data, splits)


def _generated(data: DataSection, splits: Splits) -> list[list[Clip]]:
    return _motions(data, splits, lambda split: [(f"{one.subject}/{one.action}", one) for one in _made_up(data, split)])


def _made_up(data: DataSection, split: str) -> list[Motion]:
    # one test sequence for every four of training, of other figures
    count, first = (data.sequences, 0) if split == "train" else (max(4, data.sequences // 4), data.sequences)
    return generate_motion(count, data.length, first=first)


def _cmu(data: DataSection, splits: Splits) -> list[list[Clip]]:
    (path,) = _named(data, "motion")

    def read(split: str) -> list[tuple[str, Motion]]:
        return [(f"{split}/{one.action}/{one.sequence}", one) for one in load_cmu(path, split, shortest=data.frames)]

    return _motions(data, splits, read)


def _motions(data: DataSection, splits: Splits, read: Callable[[str], list[tuple[str, Motion]]]) -> list[list[Clip]]:
    """Motions, each with the name of its sequence, as made-up cameras see them."""
    anything = any(vars(data.leave_out).values())  # names are those of both splits, whichever are opened
    named = {split: read(split) for split in (BOTH if anything else splits)}
    gone = left_out(data.leave_out, [(one.subject, one.action, name) for own in named.values() for name, one in own])
    kept = {split: [motion for name, motion in named[split] if name not in gone] for split in splits}
    for split, motions in kept.items():
        if not motions:
            raise LiftingDataError(f"data.leave_out: nothing is left of the {split} sequences")
    return [_filmed(data, motions) for motions in kept.values()]


def _h36m(data: DataSection, splits: Splits) -> list[list[Clip]]:
    pose_3d, pose_2d, cameras = _named(data, "pose_3d", "pose_2d", "calibration")
    files = Human36M(pose_3d, pose_2d, cameras, allow_pickle=data.allow_pickle)
    gone = left_out(data.leave_out, files.sequences(), {"damaged": DAMAGED})
    subjects = {"train": data.train_subjects, "test": data.test_subjects}
    return [files.clips(subjects[split], data.actions, data.confidence, gone) for split in splits]


def _3dhp(data: DataSection, splits: Splits) -> list[list[Clip]]:
    paths = _named(data, *(f"{split}_data" for split in splits))
    # of a file, poses are what its maker took; a folder of the test set beside it is read as those are
    files = [
        MpiInf3dhp(path, split, data.annotation if split == "test" else "universal", data.allow_pickle)
        for path, split in zip(paths, splits, strict=True)
    ]
    there = [(view.subject, view.action, view.sequence) for file in files for view in file.views]
    published = [(name.split("/")[0], name.split("/")[-1], name) for name in (*TRAIN_SEQUENCES, *TEST_SEQUENCES)]
    gone = left_out(data.leave_out, there, elsewhere=published)
    return [file.clips(gone, data.confidence) for file in files]


_READERS: dict[str, Callable[[DataSection, Splits], list[list[Clip]]]] = {
    "generated": _generated,
    "cmu": _cmu,
    "h36m": _h36m,
    "3dhp": _3dhp,
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
            f"data.{unset} is not set: data.source={data.source!r} needs {flags}; --dataset generated needs no file"
        )
    return [file for file in files if file is not None]


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"
