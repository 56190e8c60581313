"""Optimisers whose step can be captured: they count on the device, and read their rate there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, AdamW

from cycledistill.recipes.errors import NotCapturableError


def make_capturable(optimizer: Any) -> Tensor:
    """Let an optimiser do its steps on the device alone.

    Args:
        optimizer: One that takes ``capturable=True``, or Accelerate's wrapper of one. Adam and AdamW become fused, too.

    Returns:
        The learning rate of all groups: a scalar on the device, to be filled.

    Raises:
        NotCapturableError: The optimiser has no such option.
    """
    inner = getattr(optimizer, "optimizer", optimizer)
    if any("capturable" not in group for group in inner.param_groups):
        raise NotCapturableError(
            f"{type(inner).__name__} cannot be captured, as adam and adamw can: it has no option 'capturable'"
        )
    device = inner.param_groups[0]["params"][0].device
    rate = torch.zeros((), dtype=torch.float32, device=device)
    for group in inner.param_groups:
        group.update(capturable=True, lr=rate)
        if type(inner) in (Adam, AdamW):
            group.update(fused=True, foreach=None)
    for state in inner.state.values():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].to(device, torch.float32)
    return rate


def portable_state(optimizer: Any) -> dict[str, Any]:
    """The state of an optimiser for a checkpoint: the same whether or not it was made capturable."""
    state: dict[str, Any] = optimizer.state_dict()
    if not any(group.get("capturable") for group in state["param_groups"]):
        return state
    groups = [
        group | {"lr": float(group["lr"]), "capturable": False} | ({"fused": None} if "fused" in group else {})
        for group in state["param_groups"]
    ]
    slots = {
        number: {name: value.cpu() if name == "step" else value for name, value in slot.items()}
        for number, slot in state["state"].items()
    }
    return {**state, "param_groups": groups, "state": slots}
