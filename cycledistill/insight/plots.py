"""Pictures of what `cycledistill.insight` measures. Needs matplotlib: ``pip install "cycledistill[insight]"``."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from cycledistill.insight.measures import AttentionMap, Drift, ParameterProfile
from cycledistill.versions import require

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, told apart with impaired colour vision."""

LINES = ("-", "--", ":", "-.")
"""After as many curves as there are colours, they come again with the next kind of line."""

MOST_PREFIX = 5
"""Class, distillation and register tokens ahead of the patches; more (keypoint tokens) must be said."""


def plot_attention(
    maps: Sequence[AttentionMap],
    *,
    grid: tuple[int, int] | None = None,
    image: Tensor | None = None,
    row: int = 0,
    sample: int = 0,
    columns: int = 6,
    prefix: int | None = None,
) -> Any:
    """Where one query token looks, mean over heads: a line of pictures a cycle, one a layer (SDPose's figures 4 and 5).

    Each picture has its own scale, from the least to the greatest weight in it, which are written below it. A layer
    with several attentions (`AttentionMap.part`) has a picture for each. Of windows (Swin), ``sample`` is the number of
    one, and ``grid`` its height and width.

    Args:
        maps: From `attention_maps`. With a grid, layers with other keys than ``prefix`` and the patches are left out
            (after pruning).
        grid: Height and width in patches; without it the matrix rows x keys is drawn.
        image: (H, W, 3) in [0, 1], drawn under the weights.
        row: Which of the rows kept in ``maps``.
        sample: Which sample of the batch.
        columns: Most layers drawn, evenly spaced.
        prefix: Tokens that come before the patches, such as 17 keypoint tokens; default: what the longest map has
            beside the patches, at most 5, class, distillation and register tokens.

    Returns:
        The matplotlib figure.

    Raises:
        ValueError: No maps, no such row or sample, or a grid that is not that of the patches.
    """
    _check_maps(maps, sample, columns)
    shown = maps if grid is None else _on_grid(maps, grid, prefix)
    rows = min(m.weights.shape[2] for m in shown)
    if grid is not None and not 0 <= row < rows:
        raise ValueError(f"row={row}: the maps have {rows} rows, numbered from 0")
    layers = sorted({m.layer for m in shown})
    picked = [layers[round(i)] for i in torch.linspace(0, len(layers) - 1, min(columns, len(layers))).tolist()]
    parts = sorted({(m.layer, m.part) for m in shown if m.layer in picked})
    cycles = sorted({m.cycle for m in shown})
    figure, axes = _figure(len(cycles), len(parts), 1.7, 2.05)
    for axis in axes.flat:
        axis.set_axis_off()  # a layer may be missing in one of the cycles
    for m in shown:
        if m.layer not in picked:
            continue
        axis = axes[cycles.index(m.cycle)][parts.index((m.layer, m.part))]
        axis.set_axis_on()
        weights = m.weights[sample].mean(0)
        if grid is None:
            drawn = axis.imshow(weights.numpy(), cmap="viridis", aspect="auto")
        else:
            patches = weights[row, -grid[0] * grid[1] :].reshape(grid).numpy()
            height, width = image.shape[:2] if image is not None else grid  # patches need not be square
            extent = (0, width, height, 0)
            if image is not None:
                axis.imshow(image.numpy(), extent=extent)
            alpha = 0.65 if image is not None else 1.0
            drawn = axis.imshow(patches, cmap="viridis", alpha=alpha, extent=extent, interpolation="nearest")
        several = any(part for layer, part in parts if layer == m.layer)
        title = f"cycle {m.cycle}, layer {m.layer + 1}" + (f", part {m.part + 1}" if several else "")
        axis.set_title(title, fontsize=7 if several else 8)
        axis.set_xlabel("{:.3g} to {:.3g}".format(*drawn.get_clim()), fontsize=7)
        axis.set_xticks([])
        axis.set_yticks([])
    said = "Each picture has its own scale, dark to bright: the weights written below it."
    figure.supxlabel("\n".join(textwrap.wrap(said, 26 * len(parts))), fontsize=7)
    return figure


def plot_drift(drifts: Sequence[Drift]) -> Any:
    """How much each cycle moves the tokens: relative step, cosine and CKA; and their norm.

    A cycle that ends with another number of tokens than it began with (a pruned model's first) has a norm alone; the
    picture says so.

    Raises:
        ValueError: There are no drifts.
    """
    if not drifts:
        raise ValueError("drifts is empty: there is nothing to draw")
    figure, ((left, right),) = _figure(1, 2, 3.4, 2.6)
    cycles = [drift.cycle for drift in drifts]
    for color, name in zip(PALETTE, ("step", "cosine", "cka"), strict=False):
        left.plot(cycles, [getattr(drift, name) for drift in drifts], marker="o", color=color, label=name)
    left.legend(frameon=False, fontsize=8)
    left.set_title("before and after the cycle", fontsize=9)
    right.plot(cycles, [drift.norm for drift in drifts], marker="o", color=PALETTE[3])
    right.set_title("norm of a token after it", fontsize=9)
    lost = [str(drift.cycle) for drift in drifts if math.isnan(drift.step)]
    for axis, missing in ((left, lost), (right, [])):
        values = [value for line in axis.lines for value in line.get_ydata() if math.isfinite(value)]
        low, high = min(values, default=0.0), max(values, default=1.0)
        axis.set_ylim(1.1 * min(low, 0), 1.1 * max(high, 0) or 0.1)
        if low < 0:
            axis.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
        axis.set_xticks(cycles)
        axis.set_xlim(min(cycles) - 0.2, max(cycles) + 0.2)
        said = f"\n{', '.join(missing)}: not comparable, the number of tokens changes" if missing else ""
        axis.set_xlabel(f"cycle{said}", fontsize=8)
    return figure


def plot_parameters(profiles: Mapping[str, ParameterProfile]) -> Any:
    """Distributions of the weights of one or more models, and the share near zero (figure 2 of SDPose).

    Raises:
        ValueError: No models, or more than can be told apart, 24.
    """
    styles = _styles(len(profiles))
    figure, ((axis,),) = _figure(1, 1, 5.0, 2.5 + 0.2 * len(profiles))
    for style, (name, profile) in zip(styles, profiles.items(), strict=True):
        middle = (profile.edges[1:] + profile.edges[:-1]) / 2
        label = f"{name}: {profile.near_zero:.1%} below {profile.threshold:g}"
        axis.plot(middle.numpy(), profile.density.numpy(), label=label, drawstyle="steps-mid", **style)
    axis.set_xlabel("weight")
    axis.set_ylabel("share of the weights")
    axis.set_ylim(0, 1.1 * axis.dataLim.y1)
    figure.legend(frameon=False, fontsize=8, handlelength=3, loc="outside upper center")
    return figure


def plot_exits(scores: Mapping[str, Mapping[int, float]], ylabel: str = "accuracy") -> Any:
    """Scores of one or more models against the cycle that is read.

    Raises:
        ValueError: No models, or more than can be told apart, 24.
    """
    styles = _styles(len(scores))
    figure, ((axis,),) = _figure(1, 1, 4.2, 2.6 + 0.2 * len(scores))
    for style, (name, values) in zip(styles, scores.items(), strict=True):
        axis.plot(list(values), list(values.values()), marker="o", label=name, **style)
    axis.set_xticks(sorted({number for values in scores.values() for number in values}))
    axis.set_xlabel("cycles at inference")
    axis.set_ylabel(ylabel)
    figure.legend(frameon=False, fontsize=8, handlelength=3, loc="outside upper center")
    return figure


def _check_maps(maps: Sequence[AttentionMap], sample: int, columns: int) -> None:
    if not maps:
        raise ValueError("maps is empty: give what attention_maps returned")
    samples = min(len(m.weights) for m in maps)
    if not 0 <= sample < samples:
        raise ValueError(f"sample={sample}: the maps have {samples} samples (or windows), numbered from 0")
    if columns < 1:
        raise ValueError(f"columns={columns}: a whole number of at least 1 is expected")


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


def _styles(count: int) -> list[dict[str, str]]:
    styles = [{"linestyle": line, "color": color} for line, color in product(LINES, PALETTE)]
    if not 1 <= count <= len(styles):
        raise ValueError(f"{count} models: from 1 to {len(styles)} can be drawn in one picture")
    return styles[:count]


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    require("matplotlib")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f'{error}: pip install "cycledistill[insight]"') from error
    # Not pyplot, which would keep every figure and choose a window system.
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes
