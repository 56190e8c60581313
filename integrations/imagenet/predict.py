"""The likeliest classes of pictures that a user has: files, arrays or PIL images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

from torch import nn

from cycledistill.recipes.errors import DataError
from cycledistill.recipes.progress import with_progress

from .data.prepare import Pillow
from .evaluation.settings import DEFAULT, EvalSettings
from .prediction.sources import Given, Picture
from .prediction.stream import Predicted, predict_stream


def predict_classes(
    model: nn.Module,
    images: Sequence[Picture],
    *,
    top: int = 5,
    exit: int = 1,
    settings: EvalSettings = DEFAULT,
    progress: bool = False,
    exif: Literal["apply", "ignore"] = "ignore",
) -> list[Predicted | None]:
    """The likeliest classes of every picture.

    Size, crop, mean and standard deviation are those of the model's evaluation, and so are the logits.

    Args:
        model: A classifier, wrapped or not, on any device. Left in eval mode, with the exit it had.
        images: The pictures: files, RGB arrays (OpenCV's frames are BGR: give ``frame[..., ::-1]``) or PIL images.
        top: How many classes; at most all there are.
        exit: The cycle whose prediction is wanted. A plain model has exit 1 only.
        settings: Batch size, precision, and what happens to a picture that cannot be read: ``broken="stop"``, or
            ``"skip"``.
        progress: Say where it is: by a bar, or by lines in the log where there is no terminal.
        exif: Whether files and PIL images are turned as their EXIF data says, as a viewer shows them; by default they
            are taken as they are stored, as in training and evaluation.

    Returns:
        One `Predicted` for each picture, or ``None`` for one that cannot be read and is skipped (the log counts them).

    Raises:
        DataError: A picture that cannot be read; no list of pictures.
        ValueError: ``top`` is no number of classes; an exit that the model does not have.

    Example:
        >>> model, settings = open_model("runs/a")
        >>> found = predict_classes(model, ["cat.jpg"], settings=settings)[0]
        >>> found.names[0], found.probabilities[0]
        ('tabby', 0.93)
    """
    if isinstance(images, (str, bytes, os.PathLike)):
        raise DataError(f"images={images!r:.200}: a list of pictures is expected, [{images!r:.200}] for one")
    given = Given(images, Pillow(exif))
    stream = predict_stream(model, given, top=top, exit=exit, settings=settings)
    result: list[Predicted | None] = [None] * len(images)
    for found in with_progress(stream, "predict", "pictures", len(images), shown=progress):
        result[found.number] = found
    return result
