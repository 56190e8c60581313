"""What changes from step to step: how many cycles run, how deep stochastic depth goes, and what a cycle starts from."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from .plan import Arm
from .tasks.task import draw


def cycles_at(arm: Arm, step: int, steps: int, seed: int) -> int:
    """How many cycles an arm runs at a step; random ones are drawn by seed and step."""
    if arm.schedule == "late":
        return arm.cycles if step >= arm.turn * steps else 1
    if arm.schedule == "early":
        return arm.cycles if step < arm.turn * steps else 1
    if arm.schedule == "growing":
        return 1 + arm.cycles * step // steps
    if arm.schedule == "random":
        return 1 + int(torch.randint(arm.cycles, (1,), generator=draw(seed, step, 2)))
    return arm.cycles


class EarlyDropPath:
    """Stochastic depth that ends at a share of the steps.

    Source: Liu et al., Dropout Reduces Underfitting, arXiv 2303.01500, section 4: early stochastic depth.
    """

    def __init__(self, model: nn.Module, until: float) -> None:
        self.until = until
        self.modules = [(each, each.drop_prob) for each in model.modules() if isinstance(each, DropPath)]

    def set(self, step: int, steps: int) -> None:
        """Set the rates of a step."""
        for module, rate in self.modules:
            module.drop_prob = rate if step < self.until * steps else 0.0


def link_cycles(model: nn.Module, first_block: nn.Module, link: str) -> None:
    """Let further cycles start from the tokens and the stack's input, or from tokens without gradient.

    By hooks, which run in every cycle; cycle 1 is as it was.
    """
    if link == "plain":
        return
    seen: dict[str, Any] = {}

    def begin(module: nn.Module, args: tuple[Any, ...]) -> None:
        seen.clear()

    def enter(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        tokens: Tensor = args[0]
        if "input" not in seen:
            seen["input"] = tokens
            return None
        changed = tokens + seen["input"] if link == "input" else tokens.detach()
        return changed, *args[1:]

    model.register_forward_pre_hook(begin)
    first_block.register_forward_pre_hook(enter)
