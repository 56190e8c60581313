"""Attention as it is drawn: a row of pictures a cycle, all of a row on one scale that begins at zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cycledistill.insight.measures import AttentionMap

MOST_PREFIX = 5
"""Class, distillation and register tokens ahead of the patches; more (keypoint tokens) must be said."""

LEAST_TOP = 2.0
"""Where the scale ends at the earliest: so uniform attention is one colour in the middle of it, rounding or not."""


@dataclass(frozen=True)
class AttentionRow:
    """The attention of one cycle, in multiples of uniform: 1 is as much as if every key got the same.

    Attributes:
        cycle: From 1.
        cells: (layer, part) -> (H, W), numbers as in `AttentionMap`: over the patches, or queries by keys.
        top: Where the scale of all of them ends; it begins at 0.
        several: Layers that have more than one part.
    """

    cycle: int
    cells: dict[tuple[int, int], Tensor]
    top: float
    several: frozenset[int] = frozenset()

    def label(self, layer: int, part: int) -> str:
        """What to call a picture: ``"layer 3"``, with its part where the layer has several."""
        return f"layer {layer + 1}" + (f", part {part + 1}" if layer in self.several else "")


def attention_rows(
    maps: Sequence[AttentionMap],
    *,
    grid: tuple[int, int] | None = None,
    row: int = 0,
    sample: int = 0,
    columns: int = 6,
    prefix: int | None = None,
) -> list[AttentionRow]:
    """What `plot_attention` draws, mean over heads; its arguments, its errors."""
    if not maps:
        raise ValueError("maps is empty: give what attention_maps returned")
    samples = min(len(m.weights) for m in maps)
    if not 0 <= sample < samples:
        raise ValueError(f"sample={sample}: the maps have {samples} samples (or windows), numbered from 0")
    if columns < 1:
        raise ValueError(f"columns={columns}: a whole number of at least 1 is expected")
    shown = maps if grid is None else _on_grid(maps, grid, prefix)
    rows = min(m.weights.shape[2] for m in shown)
    if grid is not None and not 0 <= row < rows:
        raise ValueError(f"row={row}: the maps have {rows} rows, numbered from 0")
    layers = sorted({m.layer for m in shown})
    picked = {layers[round(i)] for i in torch.linspace(0, len(layers) - 1, min(columns, len(layers))).tolist()}
    several = frozenset(m.layer for m in shown if m.part)
    found = []
    for cycle in sorted({m.cycle for m in shown}):
        own = [m for m in shown if m.cycle == cycle and m.layer in picked]
        cells = {(m.layer, m.part): _multiples(m, grid, row, sample) for m in own}
        top = max([LEAST_TOP, *(float(cell.max()) for cell in cells.values())])
        found.append(AttentionRow(cycle, dict(sorted(cells.items())), top, several))
    return found


def _multiples(one: AttentionMap, grid: tuple[int, int] | None, row: int, sample: int) -> Tensor:
    weights = one.weights[sample].mean(0) * one.weights.shape[-1]
    return weights if grid is None else weights[row, -grid[0] * grid[1] :].reshape(grid)


def _on_grid(maps: Sequence[AttentionMap], grid: tuple[int, int], prefix: int | None) -> list[AttentionMap]:
    """The maps whose keys are the prefix and the patches of the grid."""
    patches, keys = grid[0] * grid[1], sorted({m.weights.shape[-1] for m in maps})
    if grid[0] < 1 or grid[1] < 1:
        raise ValueError(f"grid={grid}: height and width in patches, at least 1, are expected")
    ahead = keys[-1] - patches if prefix is None else prefix
    if prefix is None and ahead > MOST_PREFIX:
        raise ValueError(
            f"grid={grid} has {patches} patches and the maps {keys[-1]} keys: {ahead} tokens would come before the "
            f"patches. Give the grid of the patches, or say prefix={ahead} if there are so many"
        )
    shown = [m for m in maps if m.weights.shape[-1] == ahead + patches and ahead >= 0]
    if not shown:
        said = "" if prefix is None else f" behind prefix={prefix}"
        raise ValueError(
            f"grid={grid}: {patches} patches{said}, but no attention map has so many keys; they have {keys}"
        )
    return shown
