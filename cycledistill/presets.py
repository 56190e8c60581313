"""The presets of `Distill` as plain settings: a file of its own, for a command's help names them without PyTorch."""

from __future__ import annotations

from typing import Any

SETTINGS: dict[str, dict[str, Any]] = {
    "sdpose": {"task_weights": "all", "token_weight": 5e-6, "token_loss": "mse", "teacher": "next", "detach": False},
    "exits": {"task_weights": "all"},
    "elt": {"task_weights": "all", "output_weight": 1.0, "teacher": "last", "student": "random", "detach": True},
    "mct": {"task_weights": "last"},
}
"""Preset -> fields of `Distill` that it sets."""
