"""A trained model with what it takes, for ``cycledistill export RUN``.

What a run's inputs are and how they are prepared, the integration knows that trained it. Integrations announce a
function under the entry point group ``cycledistill.exports``; it takes a folder, and whether the average of the weights
is meant, and returns an `Exportable`, or ``None`` if it is not its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cycledistill.announced import whose_run

GROUP = "cycledistill.exports"

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")

BUILT = ("format", "config", "config_class", "built_from")
"""Words that say how the model is built that weights are of; a file of a graph needs none."""

Sample = Callable[[], tuple[Any, ...]]
"""Reads real inputs: the arguments of a call of the model, samples first in each tensor."""


@dataclass(frozen=True)
class Exportable:
    """A trained model, and what it takes.

    Attributes:
        name: What to call it.
        model: In eval mode, wrapped or plain.
        inputs: Arguments of a call, of the run's shapes and any values.
        samples: What of a folder or file of real data is to be read, and prepared as the run's evaluation does it. It
            says at once (``ValueError``) where there is nothing; what it returns is read later.
        words: What the run knows beside the model and a file of it should say, see `cycledistill.metadata`.
        blocks: The stack of a plain model, as ``wrap_cyclic`` takes it.
        note: What else to say of the weights: which others there are.
    """

    name: str
    model: nn.Module
    inputs: tuple[Any, ...]
    samples: Callable[[Path], Sequence[Sample]]
    words: Mapping[str, str] = field(default_factory=dict)
    blocks: str = "auto"
    note: str = ""


def open_exportable(path: Path, ema: bool = False) -> Exportable:
    """The model of a run or checkpoint, by whichever installed integration trained it.

    Args:
        path: The folder of a run or checkpoint.
        ema: The average of the weights instead of the weights.

    Raises:
        ValueError: There is no such folder, what is in it is damaged or lacks the average, or no integration knows it.
    """
    found: Exportable = whose_run(GROUP, path, ema)
    return found


def files_in(given: Path, endings: Sequence[str], what: str) -> list[Path]:
    """The files of a folder, searched to its depth, that have one of some endings, by name; or the one that is given.

    Raises:
        ValueError: There is none.

    Example:
        >>> files_in(Path("photos"), PICTURES, "picture")
        [PosixPath('photos/a.jpg'), PosixPath('photos/more/b.png')]
    """
    every = [given] if given.is_file() else sorted(given.rglob("*"))
    found = [path for path in every if path.suffix.lower() in endings]
    if not found:
        raise ValueError(f"{given}: no {what} is in it ({', '.join(endings)})")
    return found


def drawn_input(*shape: int) -> Tensor:
    """Values of a normal distribution, the same in every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))
