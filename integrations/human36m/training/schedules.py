"""The learning rate as a function of the step alone."""

from __future__ import annotations

import math

from ..recipe import ScheduleSection


def learning_rate(step: int, steps_per_epoch: int, base: float, schedule: ScheduleSection) -> float:
    """The rate of optimiser step ``step``, counted from 0.

    Source: MixSTE's and HoT's code (x 0.99 an epoch); MHFormer's (x 0.95 an epoch, every fifth x 0.5 instead).
    """
    warm = min(1.0, (step + 1) / schedule.warmup_steps) if schedule.warmup_steps else 1.0
    if schedule.cosine:
        return base * warm * 0.5 * (1 + math.cos(math.pi * step / (schedule.epochs * steps_per_epoch)))
    epoch = step // steps_per_epoch
    drops = epoch // schedule.drop_every if schedule.drop_every else 0
    return base * warm * schedule.decay ** (epoch - drops) * schedule.drop**drops
