"""The likeliest classes of a source's pictures, a batch in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from timm.utils.model import unwrap_model
from torch import Tensor, nn

from cycledistill import at_exit
from cycledistill.recipes.prediction.ahead import in_order
from cycledistill.recipes.prediction.frames import Frame
from cycledistill.recipes.prediction.sources import Source
from cycledistill.recipes.run.accelerator import autocast

from ..data.class_names import class_names, descriptions
from ..data.prepare import Preparation
from ..evaluation.accuracy import check_exits
from ..evaluation.settings import DEFAULT, EvalSettings


@dataclass(frozen=True)
class Predicted:
    """The likeliest classes of a picture, likeliest first.

    Attributes:
        picture: Its name below its source; a video's frames are called by their numbers.
        number: Its number among them, from 0; of a source of pictures as `Frame` has it.
        size: Its width and height in pixels.
        classes: The numbers of the classes, as labels have them.
        names: What they are called; their numbers where nothing says it.
        descriptions: In words, of ImageNet's classes; else empty.
        probabilities: Of each, from 0 to 1; those of all classes sum to 1.
        logits: (C,): the model's output, of all classes.
    """

    picture: str
    number: int
    size: tuple[int, int]
    classes: tuple[int, ...]
    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    probabilities: NDArray[np.float32]
    logits: NDArray[np.float32]


class Waiting(NamedTuple):
    """A picture that waits for its batch: what it is called, and its crop, (3, H, W) bytes."""

    name: str
    number: int
    size: tuple[int, int]
    crop: Tensor


def predict_stream(
    model: nn.Module, source: Source, *, top: int = 5, exit: int = 1, settings: EvalSettings = DEFAULT
) -> Iterator[Predicted]:
    """The likeliest classes of every picture, in order, while the source is read.

    Pictures are prepared as in evaluation, see `Preparation.of`. A batch of them, and a few that are read ahead, are in
    memory: a source may be of any length.

    Args:
        model: A classifier, wrapped or not, on any device; left in eval mode, with the exit it had.
        source: Of `open_source`.
        top: How many classes; at most all there are.
        exit: The cycle whose prediction is wanted. A plain model has exit 1 only.
        settings: Batch size, precision, and what happens to a picture that cannot be read.

    Yields:
        One `Predicted` for each picture that can be read.

    Raises:
        DataError: A picture that cannot be read.
        ValueError: ``top`` is no number of classes; the model does not have the exit.

    Example:
        >>> for found in predict_stream(model, open_source("photos")):
        ...     print(found.picture, found.names[0], found.probabilities[0])
    """
    bare = unwrap_model(model)
    check_exits(bare, [exit])
    if top < 1:
        raise ValueError(f"top={top}: a number of classes, 1 or more, is expected")
    preparation, names = Preparation.of(bare), class_names(bare)
    words = descriptions(names)
    device = next(bare.parameters()).device
    model.eval()

    def prepare(frame: Frame) -> Waiting:
        return Waiting(frame.name, frame.number, frame.size, preparation.crop(frame.pixels))

    def answer(waiting: list[Waiting]) -> Iterator[Predicted]:
        images = preparation.batch([each.crop for each in waiting], device)
        with torch.no_grad(), at_exit(bare, exit), autocast(device, settings.precision):
            logits = model(images).float().cpu()
        for each, row in zip(waiting, logits, strict=True):
            yield _likeliest(each, row, top, names, words)

    waiting: list[Waiting] = []
    with closing(in_order(prepare, source.frames(settings.broken))) as crops:
        for each in crops:
            waiting.append(each)
            if len(waiting) == settings.batch_size:
                yield from answer(waiting)
                waiting = []
    if waiting:
        yield from answer(waiting)


def _likeliest(picture: Waiting, logits: Tensor, top: int, names: Sequence[str], words: Sequence[str]) -> Predicted:
    # of equal ones the first, on every device: topk does not say which
    order = torch.sort(logits, descending=True, stable=True).indices[:top].tolist()
    return Predicted(
        picture=picture.name,
        number=picture.number,
        size=picture.size,
        classes=tuple(order),
        names=tuple(names[each] if each < len(names) else str(each) for each in order),
        descriptions=tuple(words[each] if each < len(words) else "" for each in order) if words else (),
        probabilities=logits.softmax(0)[order].numpy(),
        logits=logits.numpy(),
    )
