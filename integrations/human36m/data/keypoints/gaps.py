"""Keypoints that were not detected: which they are, and how they are filled."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...errors import LiftingDataError
from ..skeleton import COCO_NAMES, COCO_USED, HALPE_NAMES, HALPE_USED, JOINTS

_logger = logging.getLogger(__name__)

LEAST_CONFIDENCE = 0.05
"""Below this a detector did not see the keypoint but guessed it: what OpenPose leaves out of its pictures."""
LONGEST_GAP = 25
"""Frames, half a second at Human3.6M's rate: over more a straight line is no guess at what the person did."""
_EYES, _EARS = (1, 2), (3, 4)
_LEGS = {"coco": (13, 14, 15, 16), "halpe26": (13, 14, 15, 16), "h36m": (2, 3, 5, 6)}
NAMES = {"coco": COCO_NAMES, "h36m": JOINTS, "halpe26": HALPE_NAMES}
"""Layout -> the names of its keypoints."""
NEEDED = {"coco": COCO_USED, "halpe26": HALPE_USED, "h36m": tuple(range(len(JOINTS)))}
"""Layout -> the keypoints that a model's input cannot do without."""


def check_seen(missing: NDArray[np.bool_], layout: str, source: str) -> None:
    """Refuse keypoints that are needed and were detected in no frame, by name.

    Args:
        missing: (T, 17), see :func:`undetected`.
        layout: ``"coco"`` or ``"h36m"``.
        source: Where from, for messages.

    Raises:
        LiftingDataError: There are such keypoints, but not all are: of a file without anybody others tell.
    """
    never = [joint for joint in NEEDED[layout] if missing[:, joint].all()]
    if not never or len(never) == len(NEEDED[layout]):
        return
    told = ", ".join(f"{NAMES[layout][joint]} (keypoint {joint})" for joint in never)
    half = set(_LEGS[layout]) <= set(never)
    raise LiftingDataError(
        f"{source}: {told} was detected in no frame, so there is none to fill it from"
        + (": only the upper body is seen, and the models know whole bodies alone" if half else "")
    )


def with_ears(pixels: NDArray[np.float32], missing: NDArray[np.bool_]) -> NDArray[np.float32]:
    """COCO's keypoints (T, 17, 2 or 3) with an ear that was not detected in the middle of the eyes.

    One ear is hidden from most sides; it goes into the head's place only together with the eyes and the other ear.
    """
    filled = pixels.copy()
    for ear in _EARS:
        hidden = missing[:, ear]
        filled[hidden, ear] = pixels[hidden][:, list(_EYES)].mean(axis=1)
    return filled


def undetected(pixels: NDArray[np.floating], least: float = 0.0) -> NDArray[np.bool_]:
    """Which keypoints of (T, J, 2 or 3) are not there, (T, J): x and y are 0, as detectors write it, or not finite.

    Those that have a confidence below ``least`` are not either.
    """
    there = np.isfinite(pixels).all(axis=-1) & pixels[..., :2].any(axis=-1)
    return np.logical_not(np.asarray(there & (pixels[..., 2] >= least) if pixels.shape[-1] == 3 else there))


def fill_gaps(
    pixels: NDArray[np.float32],
    source: str,
    needed: Sequence[int] | None = None,
    least: float = 0.0,
    longest: int | None = None,
) -> NDArray[np.float32]:
    """Keypoints with those that were not detected interpolated from the nearest frames in which they were.

    Args:
        pixels: (T, J, 2 or 3).
        source: Where from, for messages.
        needed: The joints that must be found in some frame; default, all.
        least: See :func:`undetected`.
        longest: The most frames in a row over which a needed joint is filled, at the ends too; default, any number.

    Returns:
        The same shape. What was filled has a confidence of 0, where there are confidences.

    Raises:
        LiftingDataError: A needed joint was detected in no frame, or not in more than ``longest`` in a row.
    """
    missing = undetected(pixels, least)
    if not missing.any():
        return pixels
    if missing.all():
        raise LiftingDataError(f"{source}: no frame has a person to fill the others from")
    filled, times = np.where(missing[..., None], np.float32(0), pixels), np.arange(len(pixels))
    for joint in np.flatnonzero(missing.any(axis=0)):
        known = np.flatnonzero(~missing[:, joint])
        if len(known):
            for axis in range(2):
                filled[:, joint, axis] = np.interp(times, known, pixels[known, joint, axis])
        elif needed is None or joint in needed:
            raise LiftingDataError(
                f"{source}: keypoint {joint} was detected in no frame, so there is none to fill it from"
            )
    counted = missing if needed is None else missing[:, needed]
    if longest is not None:
        _check_longest(counted, longest, source)
    if counted.any():
        _logger.warning("%s: %s; filled from the frames around them", source, describe_gaps(counted))
    return filled


def _check_longest(missing: NDArray[np.bool_], longest: int, source: str) -> None:
    """Refuse gaps of a joint, (T, J), that are longer than they may be."""
    count, worst = np.zeros(missing.shape[1], int), (0, 0)
    for frame, row in enumerate(missing):
        count = np.where(row, count + 1, 0)
        worst = max(worst, (int(count.max()), frame))
    length, last = worst
    if length > longest:
        first = last - length + 1
        whole = "nobody was" if missing[first : last + 1].all() else "a keypoint that is needed was not"
        raise LiftingDataError(
            f"{source}: {whole} detected in {length} frames in a row, {first} to {last}, and gaps of at most {longest} "
            f"are filled; cut the clip there, or --fill-gaps {length} (fill={length}) fills them all the same"
        )


def describe_gaps(missing: NDArray[np.bool_]) -> str:
    """What is missing, from (T, J), in words."""
    empty = np.asarray(missing.all(axis=1))
    some = np.logical_and(missing.any(axis=1), ~empty)
    words = []
    if empty.any():
        words.append(f"{empty.sum()} of {len(empty)} frames have no person, the first is frame {np.argmax(empty)}")
    if some.any():
        lacking = missing[some].sum()
        words.append(
            f"{some.sum()} of {len(some)} frames lack some of the keypoints (x = y = 0, or hardly any confidence: not "
            f"detected), {lacking} in all, the first is frame {np.argmax(some)}"
        )
    return "; ".join(words)
