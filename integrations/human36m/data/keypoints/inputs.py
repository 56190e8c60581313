"""One person's keypoints of a file as the input of a model."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from ...errors import LiftingDataError
from ..cameras import normalize_screen
from ..clips import check_keypoints, with_confidence
from ..skeleton import coco_to_h36m, halpe_to_h36m
from .gaps import (
    LEAST_CONFIDENCE,
    LONGEST_GAP,
    NAMES,
    NEEDED,
    check_seen,
    describe_gaps,
    fill_gaps,
    undetected,
    with_ears,
)
from .person import Keypoints
from .plausible import check_confidences, check_person

_logger = logging.getLogger(__name__)


def model_input(
    given: Keypoints,
    source: str,
    layout: str | None = None,
    width: float | None = None,
    height: float | None = None,
    *,
    fill: bool | int = False,
    confidence: bool = False,
    coco: str = "extrapolated",
    least_confidence: float = LEAST_CONFIDENCE,
    checked: bool = True,
) -> NDArray[np.float32]:
    """Keypoints in pixels as a model takes them: Human3.6M's joints, normalised, nothing missing.

    Args:
        given: From :func:`read_persons`.
        source: Where from, for messages.
        layout: ``"coco"``, COCO's 17 keypoints, ``"h36m"``, Human3.6M's 17 joints, or ``"halpe26"``, of which COCO's
            are taken where ``coco`` is ``"extrapolated"``; default, what the file's form says, else ``"coco"``.
        width: Of the picture in pixels; default, what the file says.
        height: The same.
        fill: Fill what was not detected, persons and single keypoints, from the frames around it, instead of refusing
            the file. A keypoint at x = y = 0 was not detected. A number: over so many frames in a row; ``True``: 25.
        confidence: Whether the model takes a confidence; 1 where the file has none, and 0 for what was filled.
        coco: How COCO's keypoints become joints, see :func:`coco_to_h36m`; the model's ``convention.coco``.
        least_confidence: A keypoint with less was guessed, and counts as not detected.
        checked: Refuse what cannot be a person in that picture, a single frame, and confidences that are none, which
            are refused in any case where the model takes them.

    Returns:
        (T, 17, 2 or 3).

    Raises:
        LiftingDataError: Keypoints that cannot be used; the picture's size is not known; persons or keypoints that were
            not detected, without ``fill``, or in no frame at all.
    """
    width, height = width or given.width, height or given.height
    if width is None or height is None:
        raise LiftingDataError(
            f"{source} does not say how large the picture is: give --width and --height in pixels, "
            "or write `width` and `height` beside `keypoints`"
        )
    pixels, layout = given.in_pixels(width, height), layout or given.layout or "coco"
    as_coco = layout == "coco" or (layout == "halpe26" and coco == "extrapolated")
    if as_coco and pixels.ndim == 3 and pixels.shape[1] == len(NAMES["halpe26"]):
        pixels, layout = pixels[:, : len(NAMES["coco"])], "coco"
    if pixels.ndim == 3 and pixels.shape[1] == len(NAMES[layout]) and len(pixels) and pixels.shape[2] in (2, 3):
        pixels = with_confidence(pixels) if confidence and pixels.shape[2] == 2 else pixels
        if pixels.shape[2] == 3 and (checked or confidence):  # of all, as least_confidence is of 0 to 1 too
            check_confidences(pixels[~undetected(pixels, -np.inf)][:, 2], source)
        missing = undetected(pixels, least_confidence)
        if checked:
            check_person(pixels, ~missing, (width, height), layout, source)
        longest = LONGEST_GAP if fill is True else int(fill)
        pixels = _whole(pixels, missing, layout, source, longest, least_confidence)
        pixels = halpe_to_h36m(pixels) if layout == "halpe26" else pixels
    check_keypoints(pixels, source)
    if checked and len(pixels) == 1:
        raise LiftingDataError(
            f"{source}: one frame, and the models lift motion over many; --unchecked (checked=False) takes it for a "
            "person who stands still"
        )
    joints = coco_to_h36m(pixels, coco) if layout == "coco" else pixels
    normal = normalize_screen(joints[..., :2], width, height)
    return np.concatenate([normal, joints[..., 2:]], axis=-1) if confidence else normal


def _whole(
    pixels: NDArray[np.float32], missing: NDArray[np.bool_], layout: str, source: str, longest: int, least: float
) -> NDArray[np.float32]:
    """The keypoints with nothing missing in them, or a refusal."""
    needed = NEEDED[layout]
    gaps = missing[:, needed]
    if gaps.all() and np.isfinite(pixels).all() and pixels[..., :2].any():
        raise LiftingDataError(
            f"{source}: no keypoint has a confidence of {least:g}, so nobody was seen; --min-confidence takes "
            "guesses too"
        )
    if gaps.all():  # nobody at all: told by others
        return pixels
    finite = np.isfinite(pixels).all()
    if longest or finite:
        check_seen(missing, layout, source)
    if longest and missing.any():
        pixels, missing = fill_gaps(pixels, source, needed, least, longest), missing & missing.all(axis=0)
    elif gaps.any() and finite:
        raise LiftingDataError(f"{source}: {describe_gaps(gaps)}; --fill-gaps fills them from the frames around them")
    return with_ears(pixels, missing) if layout == "coco" else pixels
