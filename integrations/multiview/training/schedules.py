"""The learning rate as a function of the step alone."""

from __future__ import annotations

import math

from ..recipe import ScheduleSection


def learning_rate(step: int, steps_per_epoch: int, base: float, schedule: ScheduleSection) -> float:
    """The rate of optimiser step ``step``, counted from 0.

    Source: PPT's code (x 0.1 after 10 and 15 of 20 epochs).
    """
    warm = min(1.0, (step + 1) / schedule.warmup_steps) if schedule.warmup_steps else 1.0
    if schedule.cosine:
        return base * warm * 0.5 * (1 + math.cos(math.pi * step / (schedule.epochs * steps_per_epoch)))
    passed = sum(step >= epoch * steps_per_epoch for epoch in schedule.milestones)
    return base * warm * schedule.gamma**passed
