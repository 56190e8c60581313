"""Lifting while the frames come in: before a camera, or of a video that has no end."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..data.clips import check_keypoints
from ..data.keypoints.plausible import check_normalised
from ..data.skeleton import JOINTS
from ..data.stature import scale_to_height
from ..evaluation.measure import EvalSettings
from .causal import causal_windows, check_delay, newest_frames
from .clip import check_fits, check_unit, lift_windows

Array = NDArray[np.float32]


class LiftStream:
    """Poses of one person, frame by frame, each with a bounded delay.

    The poses are those of ``lift(..., delay=delay, every=every)`` on the whole clip: bit for bit with ``batch_size=1``,
    else up to the rounding of other batches, by which an hourglass that chooses frames by what they hold may choose
    others. What is kept is bounded: a window and the delay. Frames are expected at the rate of the model's training
    (``model.convention.frame_rate``).

    Args:
        model: A trained lifting model, wrapped or not; put in eval mode.
        settings: How, as for `lift`. Each pose takes one window, two with ``flip``.
        delay: A pose comes with the frame that is so many later, at the latest, and sees what came until then; 0: at
            once, from the past alone. Up to a window less one frame, or to half a window where the model answers for
            centre frames.
        every: Frames from one run of the model to the next, at most ``delay + 1``: poses come so many at once, for a
            fraction of the work where the model answers for sequences.
        person_height: As for `lift`.

    Raises:
        LiftingDataError: A delay that is none; a model that gives no metres, without a height.

    Example:
        >>> stream = LiftStream(model, EvalSettings(frames=27), delay=2)
        >>> [len(stream.push(frame)) for frame in keypoints[:4]], len(stream.flush())
        ([0, 0, 1, 1], 2)
    """

    def __init__(
        self,
        model: nn.Module,
        settings: EvalSettings,
        *,
        delay: int = 0,
        every: int = 1,
        person_height: float | None = None,
    ) -> None:
        check_delay(delay, every, settings.frames, settings.mode == "centre")
        check_unit(model, person_height)
        self._model, self._settings, self._height = model, settings, person_height
        self._delay, self._every = delay, every
        self._kept: deque[Array] = deque(maxlen=settings.frames + delay)
        self._seen = self._done = 0

    def push(self, keypoints: Array) -> Array:
        """Take a frame, and give the poses that are final now.

        Args:
            keypoints: (17, 2), or (17, 3) with a confidence, in Human3.6M's order, normalised. Where a joint was not
                detected, push what was last seen of it.

        Returns:
            (N, 17, 3), metres, the root at zero, in the frames' order and none twice; N is 0 until there is one.

        Raises:
            LiftingDataError: Keypoints that no model should see. They are as if they had not come.
        """
        frame, source = np.array(keypoints, np.float32)[None], f"frame {self._seen} of the stream"
        check_keypoints(frame, source)
        check_fits(self._model, frame)
        check_normalised(frame, source, later=self._seen > 0)
        self._kept.append(frame[0])
        self._seen += 1
        if newest_frames(np.array(self._done), self._delay, self._every) >= self._seen:
            return _no_poses()
        return self._poses(self._every)

    def flush(self) -> Array:
        """The poses that are still due, when no frame comes any more; the next one begins another clip.

        Returns:
            (N, 17, 3); N is at most ``delay``.
        """
        due = self._seen - self._done
        poses = self._poses(due) if due else _no_poses()
        self._kept.clear()
        self._seen = self._done = 0
        return poses

    def _poses(self, count: int) -> Array:
        times = np.arange(self._done, self._done + count)
        newest = np.full_like(times, self._seen - 1)
        places, window, place = causal_windows(times, newest, self._settings.frames, self._settings.mode == "centre")
        kept, first = np.stack(self._kept), self._seen - len(self._kept)
        found: Array = lift_windows(self._model, kept[places - first], self._settings)[window, place]
        self._done += count
        found[:, 0] = 0
        return found if self._height is None else scale_to_height(found, self._height)


def _no_poses() -> Array:
    return np.empty((0, len(JOINTS), 3), np.float32)
