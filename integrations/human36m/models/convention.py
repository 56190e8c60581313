"""What the numbers of a lifting model mean: the unit of its poses, and what its 2D input is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any, Literal, get_args, get_type_hints

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.reading.texts import parse_json

KEY = "convention"
"""Under which name files of weights and hub configs hold it."""

Unit = Literal["metres", "picture"]
CocoMapping = Literal["extrapolated", "midpoints"]


@dataclass(frozen=True)
class Convention:
    """The unit of a model's poses and the convention of its input; the defaults are those of models trained here.

    Args:
        unit: ``"metres"``; or ``"picture"``: half picture widths, x and y as they lie in the picture and the depth in
            the same unit at the root's distance, as MotionBERT is trained.
        root: ``"zero"``: the root's own output says nothing and is set to zero; ``"given"``: poses are relative to the
            root that the model gives, which is subtracted.
        joints: Of the 2D input: Human3.6M's 17.
        coco: How COCO's 17 keypoints become those, see ``coco_to_h36m``.
        normalisation: Of x and y: ``"width"``, as ``normalize_screen`` does.
        frame_rate: Frames a second of what it was trained on; ``None``: not known.

    Raises:
        ValueError: A field that is none of these.
    """

    unit: Unit = "metres"
    root: Literal["zero", "given"] = "zero"
    joints: Literal["h36m"] = "h36m"
    coco: CocoMapping = "extrapolated"
    normalisation: Literal["width"] = "width"
    frame_rate: float | None = 50.0

    def __post_init__(self) -> None:
        for name, known in get_type_hints(type(self)).items():
            choices = get_args(known)
            if name != "frame_rate" and getattr(self, name) not in choices:
                expected = " or ".join(map(repr, choices))
                raise ValueError(f"{name}={getattr(self, name)!r}: {expected} is expected")
        rate = self.frame_rate
        number = isinstance(rate, (int, float)) and not isinstance(rate, bool)
        if rate is not None and not (number and isfinite(rate) and rate >= 1):
            raise ValueError(f"frame_rate={rate!r}: frames a second, 1 or more, or None, is expected")


MOTIONBERT = Convention(unit="picture", coco="midpoints")
"""Of MotionBERT's released weights. Source: its ``datareader_h36m.py`` (labels) and ``dataset_action.py`` (COCO)."""
H36M = Convention()
"""Of the released weights of MixSTE, MHFormer and HoT on MixSTE and MHFormer. Source: VideoPose3D's loader, which all
of them use (metres, 50 frames a second), and MHFormer's ``preprocess.py`` (COCO)."""


def convention_of(model: object) -> Convention:
    """What a model's numbers mean; of a model that does not say, what those trained here mean."""
    found = getattr(model, KEY, None)
    return found if isinstance(found, Convention) else Convention()


def convention_words(convention: Convention, in_channels: int) -> dict[str, str]:
    """The convention as metadata of a file of weights; ``confidence``: whether the input has one, as third channel."""
    return {KEY: json.dumps({**asdict(convention), "confidence": in_channels == 3})}


def read_convention(words: Mapping[str, str], source: object) -> Convention | None:
    """The convention that a file's metadata has; ``None`` where it has none.

    Raises:
        CheckpointError: One that this version does not know; nothing is guessed.
    """
    if KEY not in words:
        return None
    try:
        return plain_convention(parse_json(words[KEY], source, CheckpointError))
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{source}: what it says of its unit and input is not known here ({error}), so its poses cannot be read"
        ) from error


def plain_convention(data: Any) -> Convention:
    """The convention of plain data, which ``asdict`` made.

    Raises:
        ValueError: Not a mapping, or a field that is unknown or has an unknown value.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{data!r:.200}: fields by name are expected")
    known = {each.name for each in fields(Convention)}
    unknown = sorted(set(data) - known - {"confidence"})
    if unknown:
        raise ValueError(f"unknown: {', '.join(map(str, unknown))}")
    return Convention(**{name: value for name, value in data.items() if name in known})
