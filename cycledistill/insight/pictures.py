"""Pictures inside a page: figures, and attention as small pictures that a narrow screen can stack."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cycledistill.insight.plots import MAP
from cycledistill.insight.rows import AttentionRow
from cycledistill.versions import require

_DENSER = 2  # pixels of a picture to one of the page, for screens of phones


@dataclass(frozen=True)
class Picture:
    """A picture of a page: its data, what it shows in words, and its width over its height."""

    data: str
    words: str
    width: int = 0
    ratio: float = 1.0


@dataclass(frozen=True)
class PictureRow:
    """One cycle's attention: its pictures, and where their common scale ends."""

    cycle: int
    pictures: tuple[Picture, ...]
    top: float


@dataclass(frozen=True)
class AttentionSection:
    """What one token attends to: the picture that was shown, alone, and a row a cycle."""

    caption: str
    rows: tuple[PictureRow, ...]
    shown: Picture | None = None


def of_figure(figure: Any, words: str) -> Picture:
    """A matplotlib figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DENSER * figure.dpi)
    return Picture(_data(buffer), words, width=round(figure.get_figwidth() * figure.dpi))


def of_photo(image: Tensor, words: str) -> Picture:
    """(H, W, 3) in [0, 1], as it is."""
    return Picture(_saved(image), words, ratio=image.shape[1] / image.shape[0])


def of_attention(
    rows: list[AttentionRow], caption: str, image: Tensor | None = None, ratio: float = 1.0
) -> AttentionSection:
    """Rows of attention; over an ``image`` they get its shape, else ``ratio``, width over height."""
    shown = None if image is None else of_photo(image, "what the model sees")
    ratio = ratio if shown is None else shown.ratio
    found = []
    for row in rows:
        pictures = (
            Picture(_saved(cell, vmin=0, vmax=row.top, cmap=MAP), row.label(*part), ratio=ratio)
            for part, cell in row.cells.items()
        )
        found.append(PictureRow(row.cycle, tuple(pictures), row.top))
    return AttentionSection(caption, tuple(found), shown)


def scale_bar() -> Picture:
    """The colours of attention, from 0 to the end of the scale."""
    return Picture(_saved(torch.linspace(0, 1, 128)[None], vmin=0, vmax=1, cmap=MAP), "dark to bright")


def _saved(pixels: Tensor, **colours: Any) -> str:
    require("matplotlib")
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, pixels.numpy(), format="png", **colours)
    return _data(buffer)


def _data(buffer: io.BytesIO) -> str:
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
