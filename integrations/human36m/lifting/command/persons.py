"""The persons of a file of keypoints: what the model sees of each, and what is shown of them."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...data.cameras import screen_to_pixels
from ...data.keypoints.inputs import model_input
from ...data.keypoints.person import Keypoints
from ...errors import LiftingDataError
from ...models.lifter import Lifter
from ...written.outputs import Outputs, Seen, check_clip
from ...written.world import read_camera

_logger = logging.getLogger(__name__)

Array = NDArray[np.float32]


class Prepared(NamedTuple):
    """A person who can be lifted.

    Attributes:
        keypoints: With the size and rate that were given.
        inputs: (T, 17, 2 or 3), what the model takes.
        seen: The 2D that is shown.
    """

    keypoints: Keypoints
    inputs: Array
    seen: Seen


def prepare_persons(
    persons: Sequence[Keypoints], args: argparse.Namespace, outputs: Outputs, model: Lifter
) -> list[Prepared]:
    """Those of the persons who can be lifted; options that cannot be followed are refused.

    Raises:
        LiftingDataError: So it is, or the only person cannot be lifted.
    """
    found = []
    for one in persons:
        source = f"{args.keypoints}, track {one.track}" if len(persons) > 1 else str(args.keypoints)
        one = replace(
            one,
            width=args.width or one.width,
            height=args.height or one.height,
            frame_rate=args.frame_rate or one.frame_rate,
        )
        try:
            inputs = _inputs(one, source, args, model)
        except LiftingDataError as error:
            leave_out(error, len(persons) > 1)
            continue
        size: Any = (one.width, one.height)  # known, or there would be no inputs
        seen = Seen(
            screen_to_pixels(inputs[..., :2], *size),
            size,
            one.frame_rate or model.convention.frame_rate,
            one.frames,
            read_camera(outputs, size, args.keypoints.stem),
            one.first if outputs.first_picture is None else outputs.first_picture,
        )
        check_clip(outputs, seen.frame_rate, seen)
        found.append(Prepared(one, inputs, seen))
    return found


def leave_out(error: LiftingDataError, several: bool) -> None:
    """One person of several is left out, and told of; the only one is an error."""
    if not several:
        raise error
    _logger.warning("%s; not lifted", error)


def _inputs(one: Keypoints, source: str, args: argparse.Namespace, model: Lifter) -> Array:
    """A person as the model's input."""
    if one.frame_rate is None and model.convention.frame_rate:
        _logger.warning(
            "%s does not say how many frames it has a second: taken for the %g that the model was trained on; "
            "--frame-rate says it",
            source,
            model.convention.frame_rate,
        )
    return model_input(
        one,
        source,
        args.layout,
        fill=args.fill_gaps,
        confidence=model.config.in_channels == 3,
        coco=args.coco_mapping or model.convention.coco,
        least_confidence=args.min_confidence,
        checked=not args.unchecked,
    )
