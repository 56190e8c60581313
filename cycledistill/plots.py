"""Pictures of what `cycledistill.insight` measures. Needs matplotlib: ``pip install "cycledistill[insight]"``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cycledistill.insight import AttentionMap, Drift, ParameterProfile

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, told apart with impaired colour vision."""


def plot_attention(
    maps: Sequence[AttentionMap],
    *,
    grid: tuple[int, int] | None = None,
    image: Tensor | None = None,
    row: int = 0,
    sample: int = 0,
    columns: int = 6,
) -> Any:
    """Where one query token looks, mean over heads: a line of pictures a cycle, one a layer (SDPose's figures 4 and 5).

    Args:
        maps: From `attention_maps`. Layers with fewer keys than patches (after pruning, or windows) are left out.
        grid: Height and width in patches; without it the matrix rows x keys is drawn.
        image: (H, W, 3) in [0, 1], drawn under the weights.
        row: Which of the rows kept in ``maps``.
        sample: Which sample of the batch.
        columns: Most layers drawn, evenly spaced.

    Returns:
        The matplotlib figure.

    Raises:
        ValueError: No map has a key for every patch of ``grid``.
    """
    shown = [m for m in maps if grid is None or m.weights.shape[-1] >= grid[0] * grid[1]]
    if not shown:
        keys = sorted({m.weights.shape[-1] for m in maps})
        raise ValueError(f"grid={grid}: no attention map has so many keys, they have {keys}")
    layers = sorted({m.layer for m in shown})
    picked = [layers[round(i)] for i in torch.linspace(0, len(layers) - 1, min(columns, len(layers))).tolist()]
    cycles = sorted({m.cycle for m in shown})
    figure, axes = _figure(len(cycles), len(picked), 1.7, 1.9)
    for m in shown:
        if m.layer not in picked:
            continue
        axis = axes[cycles.index(m.cycle)][picked.index(m.layer)]
        weights = m.weights[min(sample, len(m.weights) - 1)].mean(0)
        if grid is None:
            axis.imshow(weights.numpy(), cmap="viridis", aspect="auto")
        else:
            patches = weights[row, -grid[0] * grid[1] :].reshape(grid).numpy()
            height, width = image.shape[:2] if image is not None else grid  # patches need not be square
            extent = (0, width, height, 0)
            if image is not None:
                axis.imshow(image.numpy(), extent=extent)
            alpha = 0.65 if image is not None else 1.0
            axis.imshow(patches, cmap="viridis", alpha=alpha, extent=extent, interpolation="nearest")
        axis.set_title(f"cycle {m.cycle}, layer {m.layer + 1}", fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
    return figure


def plot_drift(drifts: Sequence[Drift]) -> Any:
    """How much each cycle moves the tokens: relative step, cosine and CKA; and their norm."""
    figure, ((left, right),) = _figure(1, 2, 3.4, 2.6)
    cycles = [drift.cycle for drift in drifts]
    for color, name in zip(PALETTE, ("step", "cosine", "cka"), strict=False):
        left.plot(cycles, [getattr(drift, name) for drift in drifts], marker="o", color=color, label=name)
    left.legend(frameon=False, fontsize=8)
    left.set_title("before and after the cycle", fontsize=9)
    right.plot(cycles, [drift.norm for drift in drifts], marker="o", color=PALETTE[3])
    right.set_title("norm of a token after it", fontsize=9)
    for axis in (left, right):
        axis.set_ylim(0, 1.1 * axis.dataLim.y1)
        axis.set_xticks(cycles)
        axis.set_xlabel("cycle")
    return figure


def plot_parameters(profiles: Mapping[str, ParameterProfile]) -> Any:
    """Distributions of the weights of one or more models, and the share near zero (figure 2 of SDPose)."""
    figure, ((axis,),) = _figure(1, 1, 5.0, 2.8)
    for color, (name, profile) in zip(PALETTE, profiles.items(), strict=False):
        middle = (profile.edges[1:] + profile.edges[:-1]) / 2
        label = f"{name}: {profile.near_zero:.1%} below {profile.threshold:g}"
        axis.plot(middle.numpy(), profile.density.numpy(), color=color, label=label, drawstyle="steps-mid")
    axis.set_xlabel("weight")
    axis.set_ylabel("share of the weights")
    axis.set_ylim(0, 1.1 * axis.dataLim.y1)
    figure.legend(frameon=False, fontsize=8, loc="outside upper center")
    return figure


def plot_exits(scores: Mapping[str, Mapping[int, float]], ylabel: str = "accuracy") -> Any:
    """Scores of one or more models against the cycle that is read."""
    figure, ((axis,),) = _figure(1, 1, 3.6, 2.8)
    for color, (name, values) in zip(PALETTE, scores.items(), strict=False):
        axis.plot(list(values), list(values.values()), marker="o", color=color, label=name)
    axis.set_xticks(sorted({number for values in scores.values() for number in values}))
    axis.set_xlabel("cycles at inference")
    axis.set_ylabel(ylabel)
    axis.legend(frameon=False, fontsize=8)
    return figure


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
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
