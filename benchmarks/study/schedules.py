"""What changes from step to step: how many cycles run, what they weigh, and how deep stochastic depth goes."""

from __future__ import annotations

import torch
from timm.layers import DropPath
from torch import nn

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


def later_weights(arm: Arm, step: int, steps: int) -> tuple[float, ...] | None:
    """The task weights of a step; nothing where the arm's scheme has its own.

    They change in ten parts of the training: a step in a CUDA graph is captured anew for each.
    """
    if arm.later_weight == "constant":
        return None
    return (1.0, *(arm.cycles - 1) * (10 * step // steps / 9,))


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
