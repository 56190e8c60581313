"""Persons over time as files of keypoints, which ``human36m.lift`` lifts to 3D."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cycledistill.files import atomic_write

from ...data.joints import JointSet
from ..stream import Predicted
from .tables import Add

_logger = logging.getLogger(__name__)


@contextmanager
def keypoint_files(folder: Path, joints: JointSet, fps: float | None) -> Iterator[Add]:
    """``keypoints.npz`` of the one person of a video, or ``keypoints/track_0001.npz`` of each who was followed.

    A file holds ``keypoints`` (T, K, 3), x and y in pixels and the score, 0 where the person or the joint was not
    found; ``width`` and ``height`` of a frame; ``first_frame``, the number of the first row's; ``joints``, their names;
    and ``fps``. The one person's rows are all frames, a followed one's those from the first to the last in which they
    were seen. Where nobody was followed and a frame has several persons there is no file, which the log says.

    Args:
        folder: Where to write.
        joints: The joint set.
        fps: Frames a second, where that is known.
    """
    clips: dict[int, dict[int, NDArray[np.float32]]] = {}
    facts: dict[str, NDArray[np.generic]] = {"joints": np.array(joints.names)}
    if fps is not None:
        facts["fps"] = np.array(fps)
    frames, crowded, followed = 0, -1, False

    def add(found: Predicted) -> None:
        nonlocal frames, crowded, followed
        facts["width"], facts["height"] = map(np.array, found.frame.size)
        followed = found.tracks is not None
        if found.tracks is None and len(found) > 1 and crowded < 0:
            crowded = frames
        numbers = [1] * len(found) if found.tracks is None else found.tracks.tolist()
        for number, pose in zip(numbers, found.keypoints, strict=True):
            # a joint with no score was not found, and its place means nothing: lifting knows such by zeros
            clips.setdefault(number, {})[frames] = np.where(pose[:, 2:] > 0, pose, np.float32(0))
        frames += 1

    yield add
    if crowded >= 0:
        _logger.warning(
            "frame %d has several persons: no keypoint file, which is of one; --track follows each of them", crowded
        )
    elif not clips:
        _logger.warning("nobody in any frame: no keypoint file")
    else:
        for number, clip in clips.items():
            first, last = (min(clip), max(clip)) if followed else (0, frames - 1)
            table = np.zeros((last - first + 1, len(joints), 3), np.float32)
            for frame, pose in clip.items():
                table[frame - first] = pose
            name = f"keypoints/track_{number:04d}.npz" if followed else "keypoints.npz"
            _write(folder / name, {**facts, "keypoints": table, "first_frame": np.array(first)})


def _write(path: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    path.parent.mkdir(exist_ok=True)
    atomic_write(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]
