"""Pictures of what `cycledistill.insight` measures. Needs matplotlib: ``pip install "cycledistill[insight]"``."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from torch import Tensor

from cycledistill.insight.measures import AttentionMap, Drift, ParameterProfile
from cycledistill.insight.rows import attention_rows
from cycledistill.versions import require

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, told apart with impaired colour vision."""

DRIFTS = {"step": "relative step", "cosine": "cosine", "cka": "CKA"}
"""What is drawn of a `Drift`, and its name there."""

MAP = "viridis"
"""Colours of attention, dark to bright."""

LINES = ("-", "--", ":", "-.")
"""After as many curves as there are colours, they come again with the next kind of line."""


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

    All pictures of a line have one scale, beside it, in multiples of uniform: from 0 over 1, what every key would get
    if all got the same, to the largest weight of the line, at least 2. So uniform attention is one colour. A layer with
    several attentions (`AttentionMap.part`) has a picture for each. Of windows (Swin), ``sample`` is the number of one,
    and ``grid`` its height and width.

    Args:
        maps: From `attention_maps`. With a grid, layers with other keys than ``prefix`` and the patches are left out
            (after pruning).
        grid: Height and width in patches; without it the matrix rows x keys is drawn.
        image: (H, W, 3) in [0, 1], drawn alone ahead of the first line.
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
    rows = attention_rows(maps, grid=grid, row=row, sample=sample, columns=columns, prefix=prefix)
    parts = sorted({part for each in rows for part in each.cells})
    ahead = 0 if image is None else 1
    figure, axes = _figure(len(rows), ahead + len(parts), 1.7, 1.95)
    for axis in axes.flat:
        axis.set_axis_off()  # a layer may be missing in one of the cycles
    if image is not None:
        axes[0][0].imshow(image.numpy())
        axes[0][0].set_title("what it sees", fontsize=8)
    size = image.shape[:2] if image is not None else grid  # patches need not be square
    for each, line in zip(rows, axes, strict=True):
        for part, cell in each.cells.items():
            axis = line[ahead + parts.index(part)]
            placed = {"aspect": "auto"} if size is None else {"extent": (0, size[1], size[0], 0)}
            drawn = axis.imshow(cell.numpy(), cmap=MAP, vmin=0, vmax=each.top, interpolation="nearest", **placed)
            axis.set_title(f"cycle {each.cycle}, {each.label(*part)}", fontsize=7 if each.several else 8)
        bar = figure.colorbar(drawn, ax=list(line), ticks=[0, 1, each.top], fraction=0.03, format="{x:.3g}")
        bar.ax.tick_params(labelsize=7)
        bar.set_label("times uniform", fontsize=7)
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
    figure, ((left,), (right,)) = _figure(2, 1, 4.2, 2.4)
    cycles = [drift.cycle for drift in drifts]
    for color, (name, said) in zip(PALETTE, DRIFTS.items(), strict=False):
        left.plot(cycles, [getattr(drift, name) for drift in drifts], marker="o", color=color, label=said)
    left.legend(frameon=False, fontsize=9)
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
        said = f"\n{', '.join(missing)}: not comparable, the number of tokens changes or one is nan" if missing else ""
        axis.set_xlabel(f"cycle{said}", fontsize=9)
    return figure


def plot_parameters(profiles: Mapping[str, ParameterProfile]) -> Any:
    """Distributions of the weights of one or more models, and the share near zero (figure 2 of SDPose).

    Raises:
        ValueError: No models, or more than can be told apart, 24.
    """
    styles = _styles(len(profiles))
    figure, ((axis,),) = _figure(1, 1, 4.2, 2.5 + 0.2 * len(profiles))
    for style, (name, profile) in zip(styles, profiles.items(), strict=True):
        middle = (profile.edges[1:] + profile.edges[:-1]) / 2
        label = _short(f"{name}: {profile.near_zero:.1%} below {profile.threshold:g}")
        axis.plot(middle.numpy(), profile.density.numpy(), label=label, drawstyle="steps-mid", **style)
    axis.set_xlabel("weight")
    axis.set_ylabel("share of the weights")
    axis.set_ylim(0, 1.1 * axis.dataLim.y1)
    figure.legend(frameon=False, fontsize=9, handlelength=3, loc="outside upper center")
    return figure


def plot_exits(
    scores: Mapping[str, Mapping[int, float]],
    ylabel: str = "accuracy",
    *,
    intervals: Mapping[str, Mapping[int, tuple[float, float]]] | None = None,
) -> Any:
    """Scores of one or more models against the cycle that is read, on an axis that holds 0.

    Args:
        scores: Name of a model -> exit -> score.
        ylabel: What they are, with their unit.
        intervals: For the same names and exits, from where to where a score may be: drawn as bars.

    Raises:
        ValueError: No models, or more than can be told apart, 24.
    """
    styles = _styles(len(scores))
    figure, ((axis,),) = _figure(1, 1, 4.2, 2.6 + 0.2 * len(scores))
    ends = [value for values in scores.values() for value in values.values()]
    for number, (style, (name, values)) in enumerate(zip(styles, scores.items(), strict=True)):
        axis.plot(list(values), list(values.values()), marker="o", markersize=4, label=_short(name), **style)
        aside = 0.05 * (number - (len(scores) - 1) / 2)  # bars of two models at one exit are beside each other
        for exit, (low, high) in ((intervals or {}).get(name) or {}).items():
            axis.vlines(exit + aside, low, high, colors=style["color"], linewidth=2.5, alpha=0.5)
            ends += [low, high]
    axis.set_xticks(sorted({number for values in scores.values() for number in values}))
    axis.set_ylim(min(1.08 * min(ends, default=0), 0), 1.08 * max([0, *ends]) or 1)
    axis.set_xlabel("cycles at inference")
    axis.set_ylabel(ylabel)
    figure.legend(frameon=False, fontsize=9, handlelength=3, loc="outside upper center")
    return figure


def _short(name: str) -> str:
    """A name in lines that fit the picture."""
    return "\n".join(textwrap.wrap(name, 40))


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
