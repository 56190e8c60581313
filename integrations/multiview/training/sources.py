"""A recipe's sets, with errors that name the key to change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from cycledistill.integrations.human36m.errors import LiftingDataError

from ..data.folders import read_folder
from ..data.generated import generate_moments
from ..data.human36m import read_human36m
from ..data.moments import MultiViewSet
from ..recipe import DataSection

Split = Literal["train", "test"]


def open_set(data: DataSection, split: Split) -> MultiViewSet:
    """The moments to train or to measure on.

    Raises:
        LiftingDataError: Files that are missing or cannot be used; the message names the recipe's key or the file.
    """
    return _READERS[data.source](data, split)


def _generated(data: DataSection, split: Split) -> MultiViewSet:
    # one moment to measure on for every four of training, of other figures
    count, first = (data.moments, 0) if split == "train" else (max(4, data.moments // 4), data.moments)
    return generate_moments(count, data.views, data.size, first=first)


def _folders(data: DataSection, split: Split) -> MultiViewSet:
    folder = data.train if split == "train" else data.test
    if folder is None:
        raise LiftingDataError(
            f"data.{split} is not set: data.source='folders' needs --train-data and --test-data, a recording or a "
            "folder of recordings each; --dataset generated needs no file"
        )
    every = data.train_every if split == "train" else data.test_every
    return read_folder(
        folder,
        data.calibration,
        data.unit,
        cameras=data.cameras,
        least_views=data.least_views,
        every=every,
        checked=data.layout != "other",
    )


def _human36m(data: DataSection, split: Split) -> MultiViewSet:
    if data.root is None:
        raise LiftingDataError(
            "data.root is not set: data.source='human36m' needs --data, the folder with images and annotations; "
            "--dataset generated needs no file"
        )
    subjects, every = (
        (data.train_subjects, data.train_every) if split == "train" else (data.test_subjects, data.test_every)
    )
    return read_human36m(data.root, subjects, cameras=data.cameras, least_views=data.least_views, every=every)


_READERS: dict[str, Callable[[DataSection, Split], MultiViewSet]] = {
    "generated": _generated,
    "folders": _folders,
    "human36m": _human36m,
}
"""``data.source`` -> who reads it."""
