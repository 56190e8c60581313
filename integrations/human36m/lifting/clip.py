"""A clip of any length and frame rate through a model of windows of one length and one rate."""

from __future__ import annotations

import logging

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cycledistill.recipes.progress import with_progress

from ..data.clips import check_keypoints
from ..data.keypoints.plausible import check_normalised
from ..data.skeleton import JOINTS
from ..data.stature import check_height, scale_to_height
from ..data.windows import blend_windows, centred_bounds, chunk_bounds, log_short, window_frames
from ..errors import LiftingDataError
from ..evaluation.measure import EvalSettings, predict
from ..models.convention import convention_of
from .causal import causal_windows, check_delay, newest_frames
from .resampling import is_near, resample, resample_keypoints, resampled_length

_logger = logging.getLogger(__name__)

Array = NDArray[np.float32]


def lift(
    model: nn.Module,
    keypoints: Array,
    settings: EvalSettings,
    *,
    overlap: int | None = None,
    person_height: float | None = None,
    frame_rate: float | None = None,
    delay: int | None = None,
    every: int = 1,
    progress: bool = False,
) -> Array:
    """Poses of a clip of any length.

    Longer clips are cut into windows that overlap, and where two do, one is faded into the other: side by side, poses
    jump from the last frame of a window to the first of the next. Shorter ones have their edges repeated. A clip of
    another frame rate than the model was trained on is brought to that one, and its poses back.

    Args:
        model: A trained lifting model, wrapped or not; put in eval mode. Its ``convention`` says what its numbers mean.
        keypoints: (T, 17, 2), or (T, 17, 3) with a confidence, in Human3.6M's order, normalised
            (:func:`normalize_screen`).
        settings: How; ``frames`` is what the model was built for.
        overlap: Frames that neighbouring windows share; default, a quarter of a window. 0: side by side, as models are
            measured. Not in mode ``"centre"``, which has a window around every frame, and not with ``delay``.
        person_height: Metres. Needed of a model that gives no metres, whose poses are scaled to it in every frame; of
            one that does, they are scaled to it too, where it is given.
        frame_rate: Of the keypoints, a second. ``None``: that of the model's training.
        delay: See no frame more than so many after a pose's own, as `LiftStream` does; 0: the past alone. Each frame
            then has a window of its own. Such clips are not resampled, which looks ahead. ``None``: all are seen.
        every: With ``delay``, frames from one run of the model to the next.
        progress: Say where it is: by a bar, or by lines in the log where there is no terminal.

    Returns:
        (T, 17, 3), metres, the root at zero, at the keypoints' own frame rate.

    Raises:
        LiftingDataError: Keypoints that no model should see, see :func:`check_keypoints` and :func:`check_normalised`;
            of other joints than the model's, or without the confidence that it takes; a model that gives no metres,
            without a height; an overlap, delay or frame rate that is none.

    Example:
        >>> poses = lift(load_trained("runs/a"), keypoints, EvalSettings(frames=243))
    """
    check_keypoints(keypoints, "the keypoints")
    check_normalised(keypoints, "the keypoints")
    check_fits(model, keypoints)
    check_unit(model, person_height)
    shared = shared_frames(overlap, settings, delay, every)
    length = _model_length(model, len(keypoints), frame_rate, delay)
    if length != len(keypoints):
        given = resample_keypoints(keypoints, length)
        poses = resample(_blended(model, given, settings, shared, progress), len(keypoints))
    elif delay is None:
        poses = _blended(model, keypoints, settings, shared, progress)
    else:
        poses = _delayed(model, keypoints, settings, delay, every, progress)
    poses[:, 0] = 0
    return poses if person_height is None else scale_to_height(poses, person_height)


def check_fits(model: nn.Module, keypoints: Array) -> None:
    """Refuse keypoints (T, 17, 2 or 3) that a model was not built for.

    Raises:
        LiftingDataError: It is of other joints, or of another number of values a joint.
    """
    config = getattr(model, "config", None)
    joints, channels = getattr(config, "joints", len(JOINTS)), getattr(config, "in_channels", keypoints.shape[2])
    if joints != len(JOINTS):
        raise LiftingDataError(
            f"the model is of {joints} joints; here Human3.6M's {len(JOINTS)} are lifted, as all readers give them"
        )
    if channels != keypoints.shape[2]:
        raise LiftingDataError(
            f"keypoints of {keypoints.shape[2]} numbers a joint, and the model takes {channels}: x and y, with a "
            "confidence as third; prepare(..., confidence=True) gives it, confidence=False leaves it out"
        )


def check_unit(model: nn.Module, person_height: float | None) -> None:
    """Refuse a model whose poses cannot be brought to metres, and a height that is none.

    Raises:
        LiftingDataError: It gives picture units, and there is no height of the person; or nobody is so tall.
    """
    if person_height is not None:
        check_height(person_height)
    if convention_of(model).unit != "metres" and person_height is None:
        raise LiftingDataError(
            f"the weights give poses in the unit {convention_of(model).unit!r} (half widths of the picture, as "
            "MotionBERT is trained), which are no metres without the person's height: give "
            "--person-height (person_height=), in metres, such as 1.7"
        )


def shared_frames(overlap: int | None, settings: EvalSettings, delay: int | None = None, every: int = 1) -> int:
    """Frames that neighbouring windows share; 0 where each frame has a window of its own.

    Raises:
        LiftingDataError: An overlap or a delay that is none, or both.
    """
    centre = settings.mode == "centre"
    if delay is not None:
        check_delay(delay, every, settings.frames, centre)
    elif every != 1:
        raise LiftingDataError(f"every={every!r} without a delay: give delay=, of {every!r} - 1 frames or more")
    if centre or delay is not None:
        if overlap:
            why = "in mode 'centre'" if centre else f"with delay={delay}"
            raise LiftingDataError(
                f"overlap={overlap}: {why} there is a window {'around' if centre else 'for'} every frame already"
            )
        return 0
    if overlap is None:
        return settings.frames // 4
    if isinstance(overlap, bool) or not isinstance(overlap, int) or not 0 <= overlap < settings.frames:
        raise LiftingDataError(
            f"overlap={overlap!r}: a whole number of frames from 0 to {settings.frames - 1} is expected, less than a "
            "window"
        )
    return overlap


@torch.no_grad()
def lift_windows(model: nn.Module, windows: Array, settings: EvalSettings, progress: bool = False) -> Array:
    """Poses of windows (N, F, 17, 2 or 3): (N, F, 17, 3), or of their centre frames alone, (N, 1, 17, 3)."""
    device = next(model.parameters()).device
    model.eval()
    found = []
    starts = range(0, len(windows), settings.batch_size)
    for start in with_progress(starts, "lift", "batches", shown=progress):
        batch = torch.from_numpy(windows[start : start + settings.batch_size]).to(device)
        found.append(predict(model, batch, settings).float().cpu().numpy())
    return np.concatenate(found)


def _blended(model: nn.Module, keypoints: Array, settings: EvalSettings, shared: int, progress: bool) -> Array:
    length, frames, centre = len(keypoints), settings.frames, settings.mode == "centre"
    log_short([length], frames)
    bounds = centred_bounds(length, frames) if centre else chunk_bounds(length, frames, frames - shared)
    places, inside = window_frames(bounds, length)
    windowed = lift_windows(model, keypoints[places], settings, progress)
    poses: Array = windowed[:, 0] if centre else blend_windows(windowed, places, inside, length, shared)
    return poses


def _delayed(
    model: nn.Module, keypoints: Array, settings: EvalSettings, delay: int, every: int, progress: bool
) -> Array:
    times = np.arange(len(keypoints))
    newest = newest_frames(times, delay, every, len(keypoints))
    places, window, place = causal_windows(times, newest, settings.frames, settings.mode == "centre")
    poses: Array = lift_windows(model, keypoints[places], settings, progress)[window, place]
    return poses


def _model_length(model: nn.Module, length: int, rate: float | None, delay: int | None) -> int:
    """Frames that a clip has at the rate of the model's training; those that it has, where it is not resampled."""
    trained = convention_of(model).frame_rate
    if rate is None or is_near(rate, trained or rate):
        return length
    assert trained is not None
    if delay is not None:
        _logger.warning(
            "%g frames a second, and the model was trained on %g: motion looks %.2g times as fast to it (with a delay, "
            "frames are taken as they are)",
            rate,
            trained,
            trained / rate,
        )
        return length
    found = resampled_length(length, rate, trained)
    _logger.info(
        "%g frames a second, and the model was trained on %g: %d frames are lifted as %d, and their poses brought back",
        rate,
        trained,
        length,
        found,
    )
    return found
