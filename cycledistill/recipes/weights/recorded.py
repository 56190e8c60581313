"""What a checkpoint's ``recipe.json`` recorded of its weights, or of their average: for whoever shows them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.reading.plain import is_finite

Recorded = Mapping[str, Any]


def check_average(folder: Path, ema: bool) -> None:
    """Refuse to show the average of a run that keeps none.

    Raises:
        CheckpointError: ``ema`` is asked for, and the checkpoint has no such file.
    """
    if ema and not (folder / "ema.safetensors").is_file():
        raise CheckpointError(
            f"{folder} holds no average of the weights: leave out --ema (ema=True), or train with ema.enabled=true"
        )


def recorded_figures(recipe: Recorded, ema: bool = False) -> dict[int, Mapping[str, Any]]:
    """Exit -> what was measured there; empty where the step was not evaluated.

    Example:
        >>> recorded_figures({"metrics": {"exits": {"1": {"AP": 0.7}}}})
        {1: {'AP': 0.7}}
    """
    exits = recipe.get("metrics", {}).get("ema_exits" if ema else "exits", {})
    return {int(exit): figures for exit, figures in exits.items() if exit.isdecimal()}


def recorded_scores(recipe: Recorded, name: str, ema: bool = False) -> dict[int, float]:
    """What was recorded as ``name`` at each exit; what is no number is left out.

    Example:
        >>> recorded_scores({"metrics": {"exits": {"1": {"AP": 0.7}, "2": {}}}}, "AP")
        {1: 0.7}
    """
    found: dict[int, Any] = {exit: figures.get(name) for exit, figures in recorded_figures(recipe, ema).items()}
    return {exit: float(value) for exit, value in found.items() if is_finite(value)}


def recorded_intervals(recipe: Recorded, name: str, ema: bool = False) -> dict[int, tuple[float, float]]:
    """The interval that was recorded of ``name`` at each exit, as ``NAME_interval``.

    Example:
        >>> recorded_intervals({"metrics": {"exits": {"1": {"AP_interval": [0.6, 0.8]}}}}, "AP")
        {1: (0.6, 0.8)}
    """
    found = {exit: figures.get(f"{name}_interval") for exit, figures in recorded_figures(recipe, ema).items()}
    return {
        exit: (float(ends[0]), float(ends[1]))
        for exit, ends in found.items()
        if isinstance(ends, list) and len(ends) == 2 and all(map(is_finite, ends))
    }


def recorded_count(recipe: Recorded, name: str, what: str, ema: bool = False) -> str:
    """On how many samples was measured, in words: ``"10,000 pictures"``; or that it was not recorded.

    Example:
        >>> recorded_count({"metrics": {"exits": {"1": {"images": 10000}}}}, "images", "pictures")
        '10,000 pictures'
    """
    counts = set(recorded_scores(recipe, name, ema).values())
    return f"{counts.pop():,.0f} {what}" if len(counts) == 1 else f"{what} that the run did not count"


def recorded_facts(folder: Path, recipe: Recorded, ema: bool = False) -> dict[str, str]:
    """What a checkpoint says of where its weights come from: run, weights, training, date, versions."""
    average = (folder / "ema.safetensors").is_file()
    if ema:
        weights = "their running average over training (EMA), ema.safetensors"
    else:
        beside = "not their average, which --ema shows" if average else "the run keeps no average"
        weights = f"as the last step left them, model.safetensors; {beside}"
    versions = ", ".join(f"{name} {number}" for name, number in recipe.get("versions", {}).items())
    return {
        "run": f"{folder.parent.parent.name}, checkpoint {folder.name}",
        "weights": weights,
        "training": f"{recipe.get('step', '?')} steps, {recipe.get('epoch', '?')} whole epochs",
        "saved": _date(recipe.get("saved")),
        "trained with": versions or "versions not recorded",
    }


def _date(text: Any) -> str:
    try:
        return datetime.fromisoformat(text).strftime("%d %B %Y, %H:%M UTC").lstrip("0")
    except (TypeError, ValueError):
        return "date not recorded"
