"""Skeletons over time as one picture: a row for each set of poses, a column for each of some frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cycledistill.files import atomic_write
from cycledistill.recipes.errors import RecipeError
from cycledistill.versions import require

from .data.skeleton import BONES, LEFT, RIGHT
from .errors import LiftingDataError

_COLOURS = {**dict.fromkeys(LEFT, "tab:orange"), **dict.fromkeys(RIGHT, "tab:blue")}


def draw_sequences(
    poses: Mapping[str, NDArray[np.floating]],
    path: str | Path,
    truth: NDArray[np.floating] | None = None,
    columns: int = 8,
    title: str = "",
) -> None:
    """Draw poses as the camera sees them and from the side, where depth shows.

    Args:
        poses: Name -> (T, 17, 3), metres, camera axes (y down), all of one length; a row each.
        path: The picture to write; its suffix says the format.
        truth: (T, 17, 3), drawn in grey behind every row.
        columns: How many frames, evenly spread over T.
        title: Over the picture.

    Raises:
        ValueError: No poses, or a suffix that Matplotlib does not know.
        OSError: It cannot be written; a picture that was there is as it was.
        RecipeError: Matplotlib is not installed.
    """
    if not poses:
        raise ValueError("no poses to draw")
    check_figure(path)
    from matplotlib.figure import Figure

    length = len(next(iter(poses.values())))
    frames = np.unique(np.linspace(0, length - 1, min(columns, length)).astype(int))
    views = (("front", 0), ("side", 2))
    rows = [(name, view, axis) for name in poses for view, axis in views]
    figure = Figure(figsize=(1.25 * len(frames) + 1, 1.9 * len(rows) + 0.5), layout="constrained")
    grid = figure.subplots(len(rows), len(frames), squeeze=False, sharex=True, sharey=True)
    for places, (name, view, axis) in zip(grid, rows, strict=True):
        for axes, frame in zip(places, frames, strict=True):
            if truth is not None:
                _skeleton(axes, truth[frame], axis, "0.75", 4.0)
            _skeleton(axes, poses[name][frame], axis, None, 1.5)
            axes.set(aspect="equal", xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set_visible(False)
        places[0].set_ylabel(f"{name}\n{view}", fontsize="small")
    for axes, frame in zip(grid[-1], frames, strict=True):
        axes.set_xlabel(f"frame {frame}", fontsize="small")
    if title:
        figure.suptitle(title, fontsize="medium")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda file: figure.savefig(file, dpi=120))


def check_figure(path: str | Path) -> None:
    """Refuse a picture that cannot be drawn.

    Raises:
        LiftingDataError: A suffix that Matplotlib does not know.
        RecipeError: Matplotlib is not installed.
    """
    require("matplotlib")
    try:
        from matplotlib.backend_bases import FigureCanvasBase
        from matplotlib.figure import Figure  # noqa: F401
    except ImportError as error:  # it comes with the examples, not with this integration
        raise RecipeError("a picture needs matplotlib: pip install matplotlib") from error
    suffixes = FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in suffixes:
        raise LiftingDataError(
            f"{path}: a name that ends in {', '.join('.' + each for each in sorted(suffixes))} is expected"
        )


def _skeleton(axes: object, pose: NDArray[np.floating], axis: int, colour: str | None, width: float) -> None:
    for parent, joint in BONES:
        axes.plot(  # type: ignore[attr-defined]
            pose[[parent, joint], axis],
            -pose[[parent, joint], 1],
            color=colour or _COLOURS.get(joint, "0.2"),
            linewidth=width,
            solid_capstyle="round",
        )
