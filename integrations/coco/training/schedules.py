"""Learning rate and pruning of a run, as functions of the step alone."""

from __future__ import annotations

import math

from ..recipe import PruneSection, ScheduleSection


def learning_rate(step: int, steps_per_epoch: int, base: float, schedule: ScheduleSection) -> float:
    """The rate of optimiser step ``step``, counted from 0.

    Steps down at the milestones; during the warm-up a line from ``warmup_factor`` times the rate up to it, as mmcv's
    ``warmup="linear"`` has it.
    """
    passed = sum(step >= epoch * steps_per_epoch for epoch in schedule.milestones)
    rate = base * schedule.gamma**passed
    if step < schedule.warmup_steps:
        rate *= 1 - (1 - step / schedule.warmup_steps) * (1 - schedule.warmup_factor)
    return rate


def keep_fraction(step: int, steps_per_epoch: int, keep: float, prune: PruneSection) -> float:
    """The fraction of tokens that each pruning layer keeps in step ``step``, counted from 0.

    Source: the training code of PPT (ECCV 2022): 1 in epochs 0 to 9, half a cosine to 0.7 over epochs 10 to 109.
    """
    begun = step - prune.start_epochs * steps_per_epoch
    length = prune.anneal_epochs * steps_per_epoch
    if begun < 0:
        return 1.0
    if begun >= length:
        return keep
    return keep + (1 - keep) * 0.5 * (1 + math.cos(math.pi * begun / length))
